"""The wheel of deadlines."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from towerbus.wire.deadlines import Deadlines


class Mortal:
    def __init__(self, clock):
        self.clock, self.ends = clock, []

    def due(self):
        self.ends.append(self.clock.seconds())


def wheel():
    clock = Clock()
    made = Deadlines(clock, clock.seconds)
    made.startService()
    return made, clock


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=20))
def test_a_deadline_comes_once_never_early_and_not_much_late(waits):
    made, clock = wheel()
    mortals = [Mortal(clock) for _ in waits]
    for mortal, wait in zip(mortals, waits, strict=True):
        made.set(mortal, wait)
    clock.pump([0.5] * 120)
    for mortal, wait in zip(mortals, waits, strict=True):
        (end,) = mortal.ends
        assert wait <= end <= wait + 2.5
    assert not made._slots
    made.stopService()


def test_a_deadline_that_was_taken_back_does_not_come():
    made, clock = wheel()
    mortal = Mortal(clock)
    made.clear(mortal, made.set(mortal, 3))
    made.clear(mortal, 12345)
    clock.pump([1] * 10)
    assert mortal.ends == []
    made.stopService()


def test_a_jump_ahead_loses_none():
    made, clock = wheel()
    mortals = [Mortal(clock) for _ in range(3)]
    for wait, mortal in enumerate(mortals):
        made.set(mortal, 1000 * wait + 1)
    clock.advance(100_000)
    assert all(len(mortal.ends) == 1 for mortal in mortals)
    made.stopService()


def test_one_that_fails_does_not_stop_the_others(logged_failures):
    made, clock = wheel()
    broken, mortal = Mortal(clock), Mortal(clock)
    broken.due = lambda: 1 / 0
    made.set(broken, 1)
    made.set(mortal, 2)
    clock.pump([1] * 6)
    assert len(mortal.ends) == 1
    assert [failure.type for failure in logged_failures] == [ZeroDivisionError]
    logged_failures.clear()
    made.stopService()
