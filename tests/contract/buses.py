"""The buses that the contract is tested with: a log and the intake that leads to it."""

from __future__ import annotations

import time

from support.wires import until
from twisted.internet import reactor
from twisted.internet.task import Clock
from zope.interface import implementer

from towerbus.event import event
from towerbus.log.interface import ILogFollower
from towerbus.log.memory import MemoryLog
from towerbus.log.sqlite import SqliteLog

MAX_BYTES = 100_000
MAX_AGE = 60


def made(number, size=0, **given):
    """An event with a number in it."""
    return event("jobs", "x", b'{"n":%d,"x":"%s"}' % (number, b"x" * size), **given)


def numbers(records):
    """The numbers of the events in some records."""
    return [int(event.payload[5:].partition(b",")[0]) for record in records for event in record.events]


@implementer(ILogFollower)
class Follower:
    """Keeps what it gets; may ask to wait."""

    def __init__(self, log, wait=None):
        self.log, self.wait = log, wait
        self.records, self.losses, self.too_early = [], [], []
        log.follow(self)

    def received(self, record):
        if self.log.tail.end < record.end:
            self.too_early.append(record)
        self.records.append(record)
        return self.wait

    def lost(self, lost):
        self.losses.append(lost)

    @property
    def numbers(self):
        return numbers(self.records)

    async def until(self, count):
        """Wait for so many events; return all of their numbers."""
        await until(lambda: len(self.numbers) >= count)
        return self.numbers


@implementer(ILogFollower)
class Bus:
    """A log with its intake. A record may come some turns after its emit was confirmed, or before.

    Attributes:
        log: The log.
        intake: What leads to it.
        durable: Whether it can be started again on what it kept.
        keeps_age: Whether `advance` moves the time by which it lets go of records.
    """

    durable = False
    keeps_age = True

    def __init__(self, directory):
        self.directory = directory
        self._seen = set()

    async def start(self):
        """Begin, with bounds of `MAX_BYTES` and `MAX_AGE`, and follow the log."""
        raise NotImplementedError

    async def stop(self):
        """End."""

    async def restart(self):
        """End, and begin anew on what was kept."""
        await self.stop()
        await self.start()

    async def advance(self, seconds):
        """Let time go by for the records."""
        raise NotImplementedError

    async def emit(self, *events):
        """Put events in, and wait until they are confirmed and followers have them."""
        await self.intake.emit(events)
        wanted = {event.id for event in events}
        await until(lambda: wanted <= self._seen)

    def received(self, record):
        """Follow the log, once it is made."""
        self._seen.update(event.id for event in record.events)

    def lost(self, lost):
        """Nothing is lost here."""
        raise AssertionError(lost)

    async def read(self, after):
        """All that is behind a position, piece by piece; the events at or before it are left out."""
        replay = await self.log.replay(after)
        found = []
        while records := await replay.more():
            found += records
        replay.close()
        behind = [
            record.events[place]
            for record in found
            for place in range(len(record.events))
            if record.position(place) > after
        ]
        return [int(event.payload[5:].partition(b",")[0]) for event in behind]


class MemoryBus(Bus):
    """`memory:`."""

    async def start(self):
        self.clock = Clock()
        self.log = self.intake = MemoryLog(self.clock.seconds, max_bytes=MAX_BYTES, max_age=MAX_AGE)
        self.log.follow(self)

    async def advance(self, seconds):
        self.clock.advance(seconds)


class SqliteBus(Bus):
    """`sqlite:`. What it keeps in memory is much less than what it keeps in its file."""

    durable = True
    tail_bytes = 3000

    def __init__(self, directory):
        super().__init__(directory)
        self.ahead = 0.0

    async def start(self):
        self.log = self.intake = SqliteLog(
            self.directory / "bus.db",
            reactor,
            max_bytes=MAX_BYTES,
            max_age=MAX_AGE,
            tail_bytes=self.tail_bytes,
            seconds=lambda: time.monotonic() + self.ahead,
            wall=lambda: time.time() + self.ahead,
        )
        self.log.follow(self)
        self.log.startService()

    async def stop(self):
        await self.log.stopService()

    async def advance(self, seconds):
        self.ahead += seconds
        await self.log.clean()


class SqliteBusInMemory(SqliteBus):
    """`sqlite:`, with all that is in the file in memory as well."""

    tail_bytes = MAX_BYTES
