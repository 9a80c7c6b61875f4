"""The time by which records grow old."""

from hypothesis import given
from hypothesis import strategies as st

from towerbus.log.age import AgeClock


class Times:
    """A machine's two clocks."""

    def __init__(self, wall=1_700_000_000.0):
        self.seconds, self.wall = 0.0, wall

    def clock(self, max_age=100.0):
        return AgeClock(lambda: self.seconds, lambda: self.wall, max_age)

    def pass_by(self, seconds):
        self.seconds += seconds
        self.wall += seconds


def restarted(times, clock, away):
    """Another process on another boot of the machine, after some time."""
    last, wall = clock(), times.wall
    times.pass_by(away)
    times.seconds = 7.0
    again = times.clock()
    again.resume(last, wall)
    return again


def test_it_begins_with_the_time_of_unix_and_goes_on():
    times = Times()
    clock = times.clock()
    assert clock() == 1_700_000_000.0
    times.pass_by(3)
    assert clock() == 1_700_000_003.0
    assert clock.oldest == clock() - 100


def test_a_time_away_counts():
    times = Times()
    clock = times.clock()
    before = clock()
    assert restarted(times, clock, 20)() == before + 20


def test_no_more_than_half_of_the_greatest_age_is_believed_of_a_time_away():
    times = Times()
    clock = times.clock()
    before = clock()
    assert restarted(times, clock, 1e9)() == before + 50


@given(jump=st.floats(-1e10, 1e10), while_running=st.booleans(), away=st.floats(0, 40))
def test_one_jump_of_the_clock_never_makes_all_old(jump, while_running, away):
    times = Times()
    clock = times.clock()
    written = clock()
    times.pass_by(10)
    if while_running:
        times.wall += jump
        assert abs(clock() - written - 10) < 1e-5
        again = restarted(times, clock, away)
        assert abs(again() - written - 10 - away) < 1e-5
    else:
        last, wall = clock(), times.wall
        times.pass_by(away)
        times.wall += jump
        again = times.clock()
        again.resume(last, wall)
        assert written > again.oldest
        assert again() >= last


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(-1e6, 1e6)), max_size=20))
def test_it_never_goes_back(steps):
    times = Times()
    clock, before = times.clock(), 0.0
    for passes, jump in steps:
        times.pass_by(passes)
        times.wall += jump
        assert clock() >= before
        before = clock()
        clock = restarted(times, clock, 1)
        assert clock() >= before
