"""What every log does."""

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from towerbus.errors import PositionLostError
from towerbus.event import event
from towerbus.intake.interface import IIntake
from towerbus.log.interface import ILog, ILogFollower
from towerbus.log.memory import MemoryLog
from towerbus.positions import Position


@implementer(ILogFollower)
class Follower:
    """Keeps what it gets; may ask to wait."""

    def __init__(self, wait=None):
        self.records, self.wait = [], wait

    def received(self, record):
        self.records.append(record)
        return self.wait

    @property
    def payloads(self):
        return [event.payload for record in self.records for event in record.events]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return MemoryLog(clock.seconds, max_bytes=100_000, max_age=60)


def made(number, **given):
    return event("jobs", "x", b'{"n":%d}' % number, **given)


def payloads(records):
    return [event.payload for record in records for event in record.events]


def test_it_provides_its_seams(log):
    assert verifyObject(ILog, log)
    assert verifyObject(IIntake, log)
    assert verifyObject(ILogFollower, Follower())


@pytest_twisted.ensureDeferred
async def test_followers_get_everything_in_order(log):
    one, other = Follower(), Follower()
    log.follow(one)
    await log.emit([made(1), made(2)])
    log.follow(other)
    await log.emit([made(3)])
    assert one.payloads == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    assert other.payloads == [b'{"n":3}']


@pytest_twisted.ensureDeferred
async def test_an_id_that_is_in_the_log_is_confirmed_and_not_repeated(log):
    follower = Follower()
    log.follow(follower)
    await log.emit([made(1, id="a"), made(1, id="a")])
    await log.emit([made(1, id="a"), made(2, id="b")])
    assert follower.payloads == [b'{"n":1}', b'{"n":2}']


@pytest_twisted.ensureDeferred
async def test_positions_rise_and_replay_goes_on_behind_them(log):
    follower = Follower()
    log.follow(follower)
    for number in range(5):
        await log.emit([made(number)])
    positions = [record.position(0) for record in follower.records]
    assert positions == sorted(set(positions))
    assert log.end() == positions[-1]
    assert payloads(await log.replay(positions[2])) == [b'{"n":2}', b'{"n":3}', b'{"n":4}']


@pytest_twisted.ensureDeferred
async def test_records_are_bounded_in_events_and_bytes(log):
    follower = Follower()
    log.follow(follower)
    await log.emit([made(number) for number in range(600)])
    assert [len(record.events) for record in follower.records] == [256, 256, 88]
    follower.records.clear()
    big = [event("jobs", "x", b'{"x":"%s"}' % (b"x" * 40_000)) for _ in range(3)]
    await log.emit(big)
    assert [len(record.events) for record in follower.records] == [1, 1, 1]


@pytest_twisted.ensureDeferred
async def test_old_records_go_and_their_positions_are_refused(log, clock):
    await log.emit([made(0)])
    first = log.end()
    clock.advance(61)
    await log.emit([made(1)])
    with pytest.raises(PositionLostError, match="kept for 60 s"):
        await log.replay(first)


@pytest_twisted.ensureDeferred
async def test_size_is_bounded(log):
    for number in range(200):
        await log.emit([event("jobs", "x", b'{"n":%d,"x":"%s"}' % (number, b"x" * 1000))])
    assert log._size <= 100_000
    assert len(log._records) < 100


@pytest_twisted.ensureDeferred
async def test_positions_of_another_log_and_of_the_future_are_refused(log):
    await log.emit([made(1)])
    with pytest.raises(PositionLostError, match="another log"):
        await log.replay(Position("ffff", 1, 0, 0))
    with pytest.raises(PositionLostError, match="past the end"):
        await log.replay(log.end()._replace(offset=99))


def test_producers_wait_for_a_follower_that_has_too_much_in_hand(log):
    wait = Deferred()
    log.follow(Follower(wait))
    fired = []
    log.emit([made(1)]).addCallback(fired.append)
    assert not fired
    wait.callback(None)
    assert fired == [None]
