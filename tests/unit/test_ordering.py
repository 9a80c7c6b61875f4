"""Ordering: whatever is delivered, delivered again, refused or lost, every event is in the log once, in order."""

from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towerbus.event import Event, EventError
from towerbus.log.record import MAX_BYTES, MAX_EVENTS, Record
from towerbus.topics import Topic
from towerbus.worker.known import KnownLog
from towerbus.worker.ordering import MAX_DEAD, Ordering

TOPIC = Topic("jobs", "x")


class Message(NamedTuple):
    tag: int
    body: bytes
    events: tuple[Event, ...] = ()
    fault: str = ""


def read(message):
    if message.fault:
        raise EventError(message.fault)
    return message.events


def made(id_, size=10):
    return Event(TOPIC, b"x" * size, id_, 0.0)


def message(tag, *ids, size=10, fault=""):
    return Message(tag, b"b" * 7, tuple(made(id_, size) for id_ in ids), fault)


def ordering(*messages, known=None):
    new = Ordering(known or KnownLog(), read)
    for each in messages:
        new.add(each)
    return new


def ids(step):
    return [event.id for event in step.events]


def test_what_is_at_hand_becomes_one_record():
    new = ordering(message(1, "a"), message(2, "b", "c"), message(3))
    step = new.take()
    assert ids(step) == ["a", "b", "c"]
    assert new.settle(step) == 3
    assert new.idle
    assert new.size == 0


def test_nothing_is_settled_before_it_is_confirmed():
    new = ordering(message(1, "a"))
    new.take()
    assert new.size == 7
    assert not len(new._known.window)


def test_a_record_holds_so_many_events_and_a_message_may_spill_over():
    many = [f"e{n}" for n in range(MAX_EVENTS + 10)]
    new = ordering(message(1, "a"), message(2, *many), message(3, "z"))
    first = new.take()
    assert ids(first) == ["a", *many[: MAX_EVENTS - 1]]
    assert new.settle(first) == 1, "the second message is not in the log as a whole"
    second = new.take()
    assert ids(second) == [*many[MAX_EVENTS - 1 :], "z"]
    assert new.settle(second) == 3


def test_a_record_holds_so_many_bytes():
    half = MAX_BYTES // 2
    new = ordering(*(message(n, f"e{n}", size=half) for n in range(1, 6)))
    for taken in (["e1", "e2"], ["e3", "e4"], ["e5"]):
        step = new.take()
        assert ids(step) == taken
        new.settle(step)


def test_a_larger_event_has_a_record_of_its_own():
    new = ordering(message(1, "a"), message(2, "large", size=MAX_BYTES + 1), message(3, "b"))
    for taken, through in ((["a"], 1), (["large"], 2), (["b"], 3)):
        step = new.take()
        assert ids(step) == taken
        assert new.settle(step) == through


def test_a_repeat_is_acknowledged_with_what_is_before_it():
    known = KnownLog()
    known.wrote([made("old")])
    new = ordering(message(1, "a"), message(2, "old"), message(3, "a"), known=known)
    step = new.take()
    assert ids(step) == ["a"]
    assert step.repeats == 2
    assert new.settle(step) == 3


def test_repeats_alone_need_no_record():
    known = KnownLog()
    known.wrote([made("old")])
    new = ordering(message(1, "old"), message(2), known=known)
    step = new.take()
    assert (step.events, step.repeats, step.dead) == ((), 1, ())
    assert new.settle(step) == 2


def test_an_event_that_failed_is_no_repeat():
    known = KnownLog()
    ordering(message(1, "a"), known=known).take()
    assert ids(ordering(message(1, "a"), known=known).take()) == ["a"]


def test_the_dead_are_settled_in_order_with_the_rest():
    bad = message(2, fault="not JSON")
    new = ordering(message(1, "a"), bad, message(3, "b"))
    step = new.take()
    assert ids(step) == ["a", "b"]
    assert step.dead == ((bad, "not JSON"),)
    assert new.settle(step) == 3


def test_the_dead_of_one_step_are_bounded():
    new = ordering(*(message(n, fault="no") for n in range(1, MAX_DEAD + 6)))
    first = new.take()
    assert len(first.dead) == MAX_DEAD
    assert new.settle(first) == MAX_DEAD
    assert new.settle(new.take()) == MAX_DEAD + 5


def test_only_faults_of_the_message_make_it_a_dead_letter():
    def fails(_):
        raise ZeroDivisionError

    new = Ordering(KnownLog(), fails)
    new.add(message(1, "a"))
    with pytest.raises(ZeroDivisionError):
        new.take()


# --- beside a model of the broker

OUTCOMES = ("confirmed", "confirmed, not acknowledged", "lost", "void")
contents = st.one_of(
    st.lists(st.integers(0, 40), max_size=4).map(lambda numbers: ("events", numbers)),
    st.integers(0, 40).map(lambda number: ("many", [1000 + number * 600 + n for n in range(300)])),
    st.just(("dead", [])),
)


class Bus:
    """The intake, the log and the dead queue; workers come and go."""

    def __init__(self, bodies, prefetch):
        self.intake = deque(
            message(0, *(f"e{n}" for n in numbers), fault="bad" if kind == "dead" else "") for kind, numbers in bodies
        )
        self.prefetch = prefetch
        self.log = []
        self.dead = []
        self.late = []
        self.term = 0

    def session(self, outcomes):
        """One worker's life: it ends when an outcome is not that everything went well."""
        self.term += 1
        known = KnownLog()
        for record in self.log:
            known.read(record)
        assert known.fenced("0a", self.term)
        self.log.append(Record("0a", self.term, len(self.log), ()))
        self.log.extend(self.late)
        self.late.clear()
        new = Ordering(known, read)
        unacked, tag = deque(), 0
        while self.intake or unacked:
            while self.intake and len(unacked) < self.prefetch:
                tag += 1
                unacked.append(self.intake.popleft()._replace(tag=tag))
                new.add(unacked[-1])
            step = new.take()
            outcome = next(outcomes, "confirmed") if step.events else "confirmed"
            record = Record("0a", self.term, len(self.log), step.events)
            if outcome.startswith("confirmed"):
                if step.events:
                    self.log.append(record)
                self.dead.extend(step.dead)
            elif outcome == "void":
                self.late.append(record)
            if outcome != "confirmed":
                self.intake.extendleft(reversed(unacked))
                return
            through = new.settle(step)
            while unacked and unacked[0].tag <= through:
                unacked.popleft()


@settings(max_examples=80)
@given(st.lists(contents, max_size=30), st.integers(1, 12), st.lists(st.sampled_from(OUTCOMES), max_size=25))
def test_every_event_is_in_the_log_once_and_in_order(bodies, prefetch, outcomes):
    bus = Bus(bodies, prefetch)
    outcomes = iter(outcomes)
    while bus.intake or not bus.term:
        bus.session(outcomes)
    reader = KnownLog()
    written = [event.id for record in bus.log if reader.read(record) for event in record.events]
    assert written == list(dict.fromkeys(f"e{n}" for _, numbers in bodies for n in numbers))
    assert all(len(record.events) <= MAX_EVENTS for record in bus.log)
    assert len(bus.dead) >= sum(kind == "dead" for kind, _ in bodies)
