"""The fan-out by itself: slices, order, and what is owed."""

import pytest

from towerbus.dispatcher import Lane
from towerbus.event import Event
from towerbus.interest import NOTHING, Interest
from towerbus.log.record import Record
from towerbus.positions import Lost, Position
from towerbus.topics import Topic
from towerbus.wire import fanout
from towerbus.wire.fanout import FanOut

A, B = Topic("g", "a"), Topic("g", "b")


def only(*topics):
    return Interest(frozenset(topics))


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
            self.lane.join(member, only(*topics))

    @staticmethod
    def broadcast(members, data):
        for member in members:
            member.write(data)

    def emit(self, payload, topic=A, offset=0):
        return self.fanout.received(Record("0", 1, offset, (Event(topic, payload, "x", 0),)))

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
        bus.lane.join(member, only(Topic("g", str(number))))
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
        bus.lane.join(member, only(B))
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


def test_a_member_may_leave_because_of_what_it_is_owed():
    """It overflows, and leaves while events have gathered: that ends the turn while its debts are paid."""
    bus = Bus(2500)
    bus.emit(b"1")
    bus.turn()
    member = next(member for member in bus.members if not member.got)
    write = member.write

    def overflow(data):
        write(data)
        member.write = write
        bus.fanout.subscribe(bus.lane, member, NOTHING, only(A))

    member.write = overflow
    bus.emit(b"2")
    bus.fanout.settle(member)
    member.write(b"bye")
    for _ in range(8):
        bus.turn()
    assert member.got == b"12bye"
    assert {each.got for each in bus.members if each is not member} == {b"12"}


def test_who_is_gone_is_owed_nothing():
    bus = Bus(2500)
    bus.emit(b"1")
    bus.turn()
    member = next(member for member in bus.members if not member.got)
    bus.fanout.forget(bus.lane, member, only(A))
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
    joined, left = (only(A), NOTHING) if change == "join" else (NOTHING, only(A))
    bus.fanout.subscribe(bus.lane, member, joined, left)
    bus.emit(b"2")
    bus.turn()
    assert member.got == (b"2" if change == "join" else b"1")


def at(offset, place=1):
    return Position("0", 1, offset, place)


def test_the_position_is_the_place_up_to_which_all_was_sent():
    bus = Bus(1)
    bus.fanout._begin = lambda: at(3)
    assert bus.fanout.position == bus.fanout.flush() == at(3)
    bus.emit(b"1", offset=4)
    assert bus.fanout.position == at(4, 0), "what is gathered was not sent yet"
    bus.turn()
    assert bus.fanout.position == at(4)
    bus.emit(b"2", B, offset=5)
    assert bus.fanout.position == at(5), "nobody listens, so nothing is to be sent"
    bus.emit(b"3", offset=6)
    assert bus.fanout.flush() == at(6)
    assert bus.members[0].got == b"13"


def test_the_position_never_goes_back():
    """Neither behind records that nobody hears, nor behind a loss: whoever came back there would get them again."""
    bus = Bus(1)
    seen = []
    steps = [
        lambda: bus.emit(b"1", offset=1),
        bus.turn,
        lambda: bus.emit(b"2", B, offset=2),
        lambda: bus.emit(b"3", offset=3),
        bus.turn,
        lambda: bus.fanout.lost(Lost(at(3), at(9, 0), "why")),
        lambda: bus.emit(b"4", offset=9),
        bus.turn,
    ]
    for step in steps:
        step()
        seen.append(bus.fanout.position)
    assert seen == [at(1, 0), at(1), at(2), at(2), at(3), at(9, 0), at(9, 0), at(9)]


def test_a_turn_that_fails_is_not_the_last_one():
    bus = Bus(1)
    wait = []
    bus.fanout._broadcast = lambda members, data: 1 / 0
    bus.emit(b"1", offset=1)
    with pytest.raises(ZeroDivisionError):
        bus.turn()
    bus.fanout._broadcast = bus.broadcast
    for number in range(2, 8):
        wait.append(bus.emit(b"%d" % number + b"x" * (fanout.BACKLOG // 4), offset=number))
    while bus.calls:
        bus.turn()
    assert bus.members[0].got.startswith(b"2")
    assert all(each is None or each.called for each in wait)


def test_the_position_stands_inside_a_record_whose_turn_ended_early():
    bus = Bus(1)
    seen = []
    bus.members[0].write = lambda data: seen.append(bus.fanout.position)
    events = tuple(Event(A, payload, "x", 0) for payload in (b"1", b"x" * (fanout.GATHER + 1), b"2"))
    bus.fanout.received(Record("0", 1, 7, events))
    bus.turn()
    assert seen == [at(7, 2), at(7, 3)]


def test_to_join_tells_the_place_from_which_on_events_come():
    bus = Bus(1, topics=(B,))
    (member,) = bus.members
    bus.emit(b"1", offset=1)
    bus.emit(b"2", B, offset=2)
    assert bus.fanout.subscribe(bus.lane, member, only(A), NOTHING) == at(2)
    assert member.got == b"2", "what came before is its by its old subscriptions"
    bus.emit(b"3", offset=3)
    bus.turn()
    assert member.got == b"23"


def test_a_loss_is_told_between_what_came_before_and_what_comes_after():
    bus = Bus(2500)
    lost = Lost(at(1), at(9, 0), "why")

    def tell(told):
        assert told is lost
        assert bus.fanout.position == at(9, 0)
        bus.fanout.tell(bus.members, b"gap")

    bus.fanout.on_lost = tell
    bus.emit(b"1", offset=1)
    bus.fanout.lost(lost)
    bus.emit(b"2", offset=9)
    steps = []
    while bus.calls:
        bus.turn()
        steps.append(sum(len(member.got) > 3 for member in bus.members))
    assert {member.got for member in bus.members} == {b"1gap2"}
    assert len(steps) >= 3, "in slices"


def test_what_is_told_to_nobody_owes_nothing():
    bus = Bus(0)
    bus.fanout.tell([], b"x")
    assert not bus.calls


def test_a_member_that_ends_while_it_is_settled_gets_nothing_more():
    bus = Bus(2500)
    bus.emit(b"1")
    bus.turn()
    bus.fanout.tell(bus.members, b"2")
    member = next(member for member in bus.members if not member.got)

    def overflow(data):
        member.got += data
        bus.emit(b"3")
        bus.fanout.flush()
        bus.fanout.forget(bus.lane, member, only(A))

    member.write = overflow
    bus.fanout.settle(member)
    while bus.calls:
        bus.turn()
    assert member.got == b"1"


def test_who_joins_in_the_middle_of_a_record_hears_the_rest_of_it():
    bus = Bus(1)
    late = Member()

    class Bringing(Member):
        def write(self, data):
            super().write(data)
            if not late.joined:
                late.joined = bus.fanout.subscribe(bus.lane, late, only(B), NOTHING)

    late.joined = None
    bringing = Bringing()
    bus.lane.join(bringing, only(A))
    big = b"x" * (fanout.GATHER + 1)
    events = (Event(B, b"1", "1", 0), Event(A, big, "2", 0), Event(B, b"3", "3", 0), Event(A, b"4", "4", 0))
    bus.fanout.received(Record("0", 1, 0, events))
    while bus.calls:
        bus.turn()
    assert late.joined == Position("0", 1, 0, 2)
    assert late.got == b"3"
    assert bringing.got == big + b"4"
