"""When the bus is stale, and when it is fresh again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.ops.freshness import Freshness

LOOK = 0.25


class Bus:
    """A bus that takes its time, and looks at the canaries four times in a period of a second."""

    def __init__(self, *, delay=0.1):
        self.now, self.delay = 1000.0, delay
        self.freshness = Freshness(1.0, self.now)
        self.under_way = []
        self.cut = False
        self.changes = []

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK
            self.look()
        return self

    def look(self):
        before = self.freshness.stale
        for number, at in list(self.under_way):
            if at <= self.now and not self.cut:
                self.under_way.remove((number, at))
                self.freshness.returned(number, self.now)
        self.freshness.look(self.now)
        number = self.freshness.due(self.now)
        if number is not None:
            self.freshness.taken(number)
            self.under_way.append((number, self.now + self.delay))
        if self.freshness.stale is not before:
            self.changes.append(self.freshness.stale)

    @property
    def age(self):
        return self.freshness.age(self.now)


def test_a_healthy_bus_is_proven_and_never_stale():
    bus = Bus().run(60)
    assert bus.freshness.proven
    assert bus.changes == []
    assert bus.age < 1.5


def test_it_is_not_proven_before_the_first_canary_is_back():
    bus = Bus(delay=0.6)
    assert not bus.run(0.5).freshness.proven
    assert bus.run(1).freshness.proven


def test_a_cut_is_told_within_two_and_a_half_periods_and_a_look():
    bus = Bus().run(10)
    bus.cut = True
    bus.run(1)
    assert not bus.freshness.stale
    bus.run(1.75)
    assert bus.freshness.stale


def test_a_bus_that_never_worked_is_stale_too():
    bus = Bus()
    bus.cut = True
    assert bus.run(3).freshness.stale
    assert not bus.freshness.proven


def test_it_heals_with_the_first_that_comes_back_in_time():
    bus = Bus().run(10)
    bus.cut = True
    bus.run(20)
    bus.cut = False
    bus.run(1.5)
    assert bus.changes == [True, False]
    assert bus.age < 1.5


def test_those_that_come_back_late_prove_something_but_no_freshness():
    bus = Bus().run(10)
    bus.cut = True
    bus.run(20)
    age = bus.age
    bus.freshness.returned(12, bus.now)
    assert bus.freshness.stale
    assert bus.age < age


@pytest.mark.parametrize("delay", [0.1, 0.5, 1.0, 1.25, 1.4, 1.75, 2.0, 2.4, 2.5, 2.6, 3.0, 7.0])
def test_a_bus_that_is_always_as_late_does_not_flap(delay):
    bus = Bus(delay=delay).run(60)
    assert len(bus.changes) <= 1
    if delay <= 1.25:
        assert bus.changes == []
    if delay >= 2.5:
        assert bus.changes == [True]


@pytest.mark.parametrize("gap", [3, 60, 100_000])
def test_a_process_that_was_stopped_does_not_blame_the_bus(gap):
    bus = Bus().run(10)
    bus.now += gap
    bus.run(5)
    assert bus.changes == []


def test_a_process_that_was_stopped_while_the_bus_was_cut_still_finds_out():
    bus = Bus().run(10)
    bus.cut = True
    bus.run(1)
    bus.now += 60
    bus.run(3)
    assert bus.changes == [True]


def test_one_that_never_comes_back_makes_way_for_others():
    bus = Bus()
    bus.cut = True
    bus.run(1000)
    assert len(bus.freshness._emitted) <= 256
    assert len(bus.freshness._unanswered) <= 256


def test_what_the_intake_says_is_kept_until_it_says_otherwise():
    freshness = Freshness(1.0, 0.0)
    one = freshness.due(0.0)
    assert freshness.due(0.5) is None
    assert freshness.unanswered(0.5) == 0.5
    freshness.refused(one, "full")
    assert (freshness.refusal, freshness.unanswered(0.5)) == ("full", 0.0)
    two = freshness.due(1.0)
    assert freshness.refusal == "full"
    freshness.taken(two)
    assert freshness.refusal == ""


def test_one_that_has_come_back_was_taken_whatever_the_intake_says():
    freshness = Freshness(1.0, 0.0)
    one, two = freshness.due(0.0), freshness.due(1.0)
    freshness.returned(two, 1.2)
    assert freshness.unanswered(9.0) == 0.0
    assert freshness.age(1.5) == 0.5
    freshness.returned(one, 1.3)  # it was overtaken
    assert freshness.age(1.5) == 0.5


def test_a_worker_that_is_away_for_long_is_not_left_with_thousands_and_heals_at_once_all_the_same():
    bus = Bus().run(10)
    bus.cut = True
    bus.run(3600)
    assert 700 < len(bus.under_way) < 750
    bus.cut = False
    bus.run(1)
    assert bus.changes == [True, False]


def test_an_intake_that_takes_nothing_is_tried_each_period():
    freshness, numbers = Freshness(1.0, 0.0), []
    for now in range(100):
        numbers.append(freshness.due(float(now)))
        freshness.refused(numbers[-1], "full")
    assert None not in numbers


def test_one_that_nobody_emitted_proves_nothing():
    freshness = Freshness(1.0, 0.0)
    freshness.returned(99, 0.1)
    assert not freshness.proven


@given(st.lists(st.floats(0, 10), max_size=50))
def test_the_age_is_never_negative_and_staleness_follows_it(times):
    freshness, now = Freshness(1.0, 0.0), 0.0
    for step in times:
        now += step
        freshness.look(now)
        number = freshness.due(now)
        if number is not None and step > 5:
            freshness.returned(number, now)
        assert freshness.age(now) >= 0
        assert freshness.stale or freshness.age(now) <= freshness.limit
