"""The fan-out by itself: slices, order, and what is owed."""

import pytest

from towerbus.dispatcher import Lane
from towerbus.event import Event
from towerbus.log.record import Record
from towerbus.topics import Topic
from towerbus.wire import fanout
from towerbus.wire.fanout import FanOut

A, B = Topic("g", "a"), Topic("g", "b")


class Member:
    def __init__(self):
        self.got = b""

    def write(self, data):
        self.got += data


class Bus:
    """A fan-out whose turns are turned by hand."""

    def __init__(self, count, topics=(A,)):
        self.calls = []
        self.lane = Lane(lambda record, place: record.events[place].payload)
        self.fanout = FanOut([self.lane], lambda seconds, call: self.calls.append(call), self.broadcast)
        self.members = [Member() for _ in range(count)]
        for member in self.members:
            self.lane.join(member, topics)

    @staticmethod
    def broadcast(members, data):
        for member in members:
            member.write(data)

    def emit(self, payload, topic=A):
        return self.fanout.received(Record("0", 1, 0, (Event(topic, payload, "x", 0),)))

    def turn(self):
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    @property
    def served(self):
        return sum(1 for member in self.members if member.got)


def test_a_flush_to_many_is_cut_into_slices():
    bus = Bus(2500)
    bus.emit(b"1")
    steps = []
    for _ in range(5):
        bus.turn()
        steps.append(bus.served)
    assert max(after - before for before, after in zip([0, *steps], steps, strict=False)) <= fanout.SLICE
    assert steps[-1] == 2500
    assert not bus.calls


def test_many_small_cohorts_are_cut_as_well():
    bus = Bus(0)
    for number in range(2500):
        member = Member()
        bus.members.append(member)
        bus.lane.join(member, [Topic("g", str(number))])
        bus.emit(b"1", Topic("g", str(number)))
    bus.turn()
    assert bus.served <= fanout.SLICE
    for _ in range(4):
        bus.turn()
    assert bus.served == 2500


def test_order_is_kept_while_slices_are_owed():
    bus = Bus(2500)
    few = bus.members[:10]
    for member in few:
        bus.lane.join(member, [B])
    bus.emit(b"1")
    bus.turn()
    bus.emit(b"2", B)
    bus.emit(b"3")
    bus.fanout.end_turn()
    bus.emit(b"4", B)
    for _ in range(12):
        bus.turn()
    assert {member.got for member in few} == {b"1234"}
    assert {member.got for member in bus.members[10:]} == {b"13"}


def test_what_is_owed_comes_before_what_is_said():
    bus = Bus(2500)
    bus.emit(b"1")
    bus.turn()
    member = next(member for member in bus.members if not member.got)
    bus.fanout.settle(member)
    member.write(b"reply")
    for _ in range(4):
        bus.turn()
    assert member.got == b"1reply"


def test_who_is_gone_is_owed_nothing():
    bus = Bus(2500)
    bus.emit(b"1")
    bus.turn()
    member = next(member for member in bus.members if not member.got)
    bus.fanout.forget(bus.lane, member, [A])
    for _ in range(4):
        bus.turn()
    assert member.got == b""
    assert bus.served == 2499
    assert bus.fanout.deliveries == 2499


def test_a_turn_is_one_write_and_ends_early_when_it_is_long():
    bus = Bus(1)
    calls = []
    bus.members[0].write = calls.append
    for number in range(5):
        bus.emit(b"%d" % number)
    bus.turn()
    assert calls == [b"01234"]
    bus.emit(b"x" * (fanout.GATHER + 1))
    assert len(calls) == 2, "before the turn is over"


def test_producers_wait_while_too_much_is_owed():
    bus = Bus(2500)
    sizes = dict.fromkeys(bus.members, 0)

    def count(member, data):
        sizes[member] += len(data)

    for member in bus.members:
        member.write = lambda data, member=member: count(member, data)
    waits = [bus.emit(b"x" * 200_000) for _ in range(30)]
    assert waits[0] is None
    late = [wait for wait in waits if wait is not None]
    assert late
    for _ in range(200):
        bus.turn()
    assert all(wait.called for wait in late)
    assert set(sizes.values()) == {6_000_000}


@pytest.mark.parametrize("change", ["join", "leave"])
def test_a_change_counts_from_the_next_event_on(change):
    bus = Bus(1, topics=(A,) if change == "leave" else (B,))
    (member,) = bus.members
    bus.emit(b"1")
    joined, left = ([A], []) if change == "join" else ([], [A])
    bus.fanout.subscribe(bus.lane, member, joined, left)
    bus.emit(b"2")
    bus.turn()
    assert member.got == (b"2" if change == "join" else b"1")
