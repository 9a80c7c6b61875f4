"""The canary: goes through the whole bus, says where the way is broken, and nobody else sees it."""

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from towerbus.errors import BusUnavailable
from towerbus.event import Event
from towerbus.intake.interface import IIntake
from towerbus.ops.canary import Canary
from towerbus.topics import topic


@implementer(IIntake)
class Bus:
    """A bus in memory, with a broken place; it is log and intake at once."""

    def __init__(self, clock):
        self.clock = clock
        self.broken = ""
        self.on_internal = None
        self.missing = self.trouble = ""
        self.paused = False
        self.ahead = 0
        self.looks = []
        self.events, self.kept = [], []

    def emit(self, events):
        if self.broken == "intake":
            return fail(BusUnavailable("the intake is full"))
        if self.broken == "frozen":
            return Deferred()
        self.events += events
        if self.broken in {"worker", "log"}:
            self.kept.append(events)
            self.ahead += self.broken == "log"
        else:
            self.clock.callLater(0.01, self.deliver, events)
        return succeed(None)

    def mend(self):
        """Nothing is broken any more: what was kept goes on."""
        self.broken, self.ahead = "", 0
        kept, self.kept = self.kept, []
        for events in kept:
            self.deliver(events)

    def deliver(self, events):
        if self.on_internal is not None:
            self.on_internal(events)

    def behind(self):
        look = Deferred()
        self.looks.append(look)
        if self.broken != "frozen":
            self.answer()
        return look

    def answer(self):
        while self.looks:
            self.looks.pop().callback(self.ahead)


class Life:
    def __init__(self):
        self.clock = Clock()
        self.clock.advance(5000)
        self.bus = Bus(self.clock)
        self.told = []
        self.canary = Canary(
            self.bus, self.bus, self.clock, 1.0,
            stale=self.told.append, fresh=lambda: self.told.append("fresh"),
            seconds=self.clock.seconds, now=lambda: 1_000_000 + self.clock.seconds(),
        )  # fmt: skip

    def run(self, seconds):
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)

    def broken(self):
        hop = self.canary.broken()
        return hop and hop.name


@pytest.fixture
def life():
    life = Life()
    life.canary.startService()
    yield life
    life.canary.stopService()


def test_one_goes_out_each_period_and_all_is_well(life):
    life.run(10)
    assert 10 <= len(life.bus.events) <= 11
    assert (life.told, life.broken()) == ([], None)
    assert life.canary.age < 1.1


def test_it_is_an_internal_event_of_its_own_server(life):
    other = Life()
    other.canary.startService()
    life.run(1)
    other.run(1)
    one, two = life.bus.events[0], other.bus.events[0]
    assert one.topic.group == two.topic.group == "_towerbus"
    assert one.topic.type.startswith("canary.")
    assert one.topic != two.topic
    assert len({event.id for event in life.bus.events}) == len(life.bus.events)
    other.canary.stopService()


def test_before_the_first_is_back_it_is_not_well(life):
    assert life.broken() == "canary"
    life.run(0.1)
    assert life.broken() is None


@pytest.mark.parametrize("place", ["intake", "worker", "log"])
def test_a_broken_hop_is_named_told_once_and_heals(life, place):
    life.run(10)
    life.bus.broken = place
    life.run(5)
    assert life.broken() == place
    (since,) = life.told
    assert abs(since - 1_005_010) < 1.1
    life.run(5)
    assert len(life.told) == 1
    life.bus.mend()
    life.run(1.5)
    assert life.told[1:] == ["fresh"]
    assert life.broken() is None


def test_it_is_told_within_five_seconds(life):
    life.run(10)
    life.bus.broken = "frozen"
    life.run(3)
    assert len(life.told) == 1
    assert "confirmed nothing" in life.canary.broken().reason


def test_a_broker_that_does_not_answer_is_named(life):
    life.run(10)
    life.bus.broken = "frozen"
    life.run(6)
    assert life.broken() == "broker"
    assert "not answered" in life.canary.broken().reason
    life.bus.broken = ""
    life.bus.answer()
    life.run(2)
    assert life.broken() is None


def test_a_broker_that_is_away_is_named_before_all_else(life):
    life.run(10)
    life.bus.broken, life.bus.trouble = "intake", "connection refused"
    life.run(5)
    assert life.canary.broken() == ("broker", "connection refused")
    life.bus.missing = "no stream"
    assert life.canary.broken() == ("log", "no stream")


def test_a_loss_of_the_connection_that_heals_at_once_is_nobodys_business(life):
    life.run(10)
    life.bus.trouble = "connection lost"
    life.run(1)
    life.bus.trouble = ""
    life.run(5)
    assert life.told == []


def test_followers_that_ask_to_wait_are_named(life):
    life.run(10)
    life.bus.broken, life.bus.paused = "log", True
    life.run(15)
    assert life.broken() == "log"
    assert "passed on" in life.canary.broken().reason


def test_other_peoples_canaries_prove_nothing(life):
    life.run(10)
    life.bus.broken = "worker"
    for _ in range(5):
        life.bus.deliver([Event(topic("_towerbus", "canary.other"), life.bus.events[-1].payload, "x", 0.0)])
        life.run(1)
    assert life.broken() == "worker"


def test_a_forged_one_is_logged_and_harms_nothing(life, logged_failures):
    life.run(1)
    life.bus.deliver([Event(life.bus.events[0].topic, b'{"m":"x"}', "x", 0.0)])
    assert len(logged_failures) == 1
    logged_failures.clear()
    life.run(5)
    assert life.broken() is None


def test_an_intake_that_fails_is_logged_and_it_goes_on(life, logged_failures):
    emit = life.bus.emit
    life.bus.emit = lambda events: 1 / 0
    life.run(1)
    assert {failure.type for failure in logged_failures} == {ZeroDivisionError}
    logged_failures.clear()
    life.bus.emit = emit
    life.run(3)
    assert life.broken() is None


def test_a_loop_that_stands_still_is_not_taken_for_health(life):
    life.run(1)
    life.canary._loop.stop()
    life.run(3)
    assert life.broken() == "canary"
    assert "stand still" in life.canary.broken().reason
    life.canary._loop.start(0.25)


def test_a_stopped_one_sends_nothing(life):
    life.run(1)
    life.canary.stopService()
    count = len(life.bus.events)
    life.run(5)
    assert (len(life.bus.events), life.bus.on_internal) == (count, None)
    life.canary.startService()
