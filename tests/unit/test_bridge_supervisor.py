"""One life after the other, with pauses that grow, and an end in bounded time."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from towerbus.bridge.standing import Standing, State, Title
from towerbus.bridge.supervisor import ENDS, LONGEST_PAUSE, STEADY, Supervisor
from towerbus.errors import TowerbusError


class Lives:
    """A source whose lives are ended by hand."""

    def __init__(self):
        self.clock = Clock()
        self.standing = Standing(Title("b", "source", "test"))
        self.lives, self.ended = [], []
        self.stubborn = None
        self.supervisor = Supervisor(self.standing, self.live, self.clock)

    async def live(self):
        self.lives.append(Deferred())
        try:
            await self.lives[-1]
        finally:
            self.ended.append(len(self.lives))
            if self.stubborn is not None:
                await self.stubborn

    def fail(self, text="broken"):
        self.lives[-1].errback(TowerbusError(text))


@pytest.fixture
def bridge():
    made = Lives()
    made.supervisor.startService()
    yield made
    made.supervisor.stopService()
    made.clock.advance(0)
    made.clock.advance(ENDS)


def test_it_is_well_when_the_foreign_system_answers(bridge):
    assert (bridge.standing.state, bridge.standing.trouble) == (
        State.STARTING,
        "the foreign system has not answered yet",
    )
    bridge.standing.established()
    assert (bridge.standing.state, bridge.standing.trouble) == (State.CARRYING, "")


def test_a_life_that_fails_is_followed_by_the_next_and_its_reason_stands_until_that_is_well(bridge):
    bridge.standing.established()
    bridge.fail("no such queue")
    assert (bridge.standing.state, bridge.standing.trouble) == (State.WAITING, "no such queue")
    assert bridge.standing.counts.failures == 1
    bridge.clock.advance(0.2)
    assert len(bridge.lives) == 2
    assert bridge.standing.trouble == "no such queue"
    bridge.standing.established()
    assert bridge.standing.trouble == ""


def test_pauses_grow_to_a_bound_and_begin_anew_when_it_was_well(bridge):
    def pause():
        (call,) = bridge.clock.getDelayedCalls()
        return call.getTime() - bridge.clock.seconds()

    pauses = []
    for _ in range(12):
        bridge.fail()
        pauses.append(pause())
        bridge.clock.advance(pauses[-1])
    assert 0.1 <= pauses[0] <= 0.2
    assert LONGEST_PAUSE / 2 <= pauses[-1] <= LONGEST_PAUSE
    bridge.standing.established()
    bridge.fail()
    assert pause() >= LONGEST_PAUSE / 2, "it was well for no time"
    bridge.clock.advance(pause())
    bridge.standing.established()
    bridge.clock.advance(STEADY)
    bridge.fail()
    assert pause() <= 0.2


def test_a_life_that_returns_is_followed_by_the_next(bridge):
    bridge.lives[-1].callback(None)
    assert "ended without a word" in bridge.standing.trouble
    bridge.clock.advance(0.2)
    assert len(bridge.lives) == 2


def test_what_nobody_expected_is_logged_whole(bridge, logged_failures):
    bridge.lives[-1].errback(KeyError("a fault of ours"))
    assert bridge.standing.trouble == "KeyError: 'a fault of ours'"
    assert [failure.type for failure in logged_failures] == [KeyError]
    logged_failures.clear()


def test_stopping_cancels_the_life_and_waits_for_its_end(bridge):
    bridge.stubborn = Deferred()
    ended = []
    bridge.supervisor.stopService().addCallback(ended.append)
    bridge.clock.advance(0)
    assert bridge.ended == [1]
    assert not ended
    bridge.stubborn.callback(None)
    assert ended == [None]
    assert bridge.standing.state is State.STOPPED


def test_a_life_that_does_not_end_is_not_waited_for_for_ever(bridge):
    bridge.stubborn = Deferred(lambda _: None)
    ended = []
    bridge.supervisor.stopService().addBoth(ended.append)
    bridge.clock.advance(0)
    bridge.clock.advance(ENDS)
    assert len(ended) == 1


def test_a_life_that_minds_no_cancel_is_not_waited_for_either():
    clock, standing = Clock(), Standing(Title("b", "sink", "test"))

    async def live():
        while True:
            try:
                await Deferred()
            except CancelledError:
                continue

    supervisor, ended = Supervisor(standing, live, clock), []
    supervisor.startService()
    supervisor.stopService().addCallback(ended.append)
    clock.advance(0)
    assert ended == []
    clock.advance(ENDS)
    assert ended == [None]


def test_it_is_stopped_while_it_waits(bridge):
    bridge.fail()
    ended = []
    bridge.supervisor.stopService().addCallback(ended.append)
    bridge.clock.advance(0)
    assert ended == [None]
    bridge.clock.advance(60)
    assert len(bridge.lives) == 1


def test_a_cancel_from_elsewhere_does_not_end_the_bridge(bridge):
    bridge.lives[-1].errback(CancelledError())
    bridge.clock.advance(0.2)
    assert len(bridge.lives) == 2


def test_trouble_while_it_lives_is_told_and_counted_once():
    standing = Standing(Title("b", "sink", "test"))
    standing.begun()
    standing.established()
    standing.troubled("full")
    standing.troubled("full")
    standing.troubled("fuller")
    assert (standing.trouble, standing.counts.failures) == ("fuller", 1)
    standing.troubled("")
    assert standing.trouble == ""
