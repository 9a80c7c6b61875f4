"""What a sink gets: the events of its topics, in the order of the log, from where it was on.

It reads the log piece by piece, at the pace of the sink: from memory where it keeps up, from the stream where it was
away. A part of the log that is gone is told, counted and passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from towerbus.access import Patterns
from towerbus.bridge.feed import Graves
from towerbus.bridge.interface import IOutflow, Measure, Outgoing
from towerbus.bridge.kept import KeptPosition
from towerbus.bridge.message import Message
from towerbus.bridge.standing import Standing
from towerbus.errors import BusUnavailable, PositionLostError
from towerbus.log.interface import ILogFollower, IReplay
from towerbus.log.record import Record
from towerbus.log.tail import Tail
from towerbus.positions import Lost, Position

PAUSE = 1.0
"""Seconds before the log is asked again that can't be read."""
QUIET = 5.0
"""Seconds between positions that are kept while nothing comes that the sink wants."""

_log = Logger()


class ReadableLog(Protocol):
    """The log, as it is read here: `AmqpLog`, or another `ILog` that knows its end."""

    tail: Tail

    def when_known(self) -> Deferred[None]:
        """Fires when the log's end is known."""

    def follow(self, follower: ILogFollower) -> None:
        """Hand every record from now on to the follower."""

    def replay(self, after: Position) -> Deferred[IReplay]:
        """Read what stands behind a position."""


@implementer(ILogFollower)
class News:
    """Wakes whoever waits for the next record. The records themselves are read from the tail."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: Deferred[None] | None = None

    def received(self, record: Record) -> None:  # noqa: ARG002 - the interface's
        """There is a record."""
        self.count += 1
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def lost(self, lost: Lost) -> None:  # noqa: ARG002 - the interface's
        """A part of the log went by unread; whoever reads finds out."""
        self.count += 1

    async def later_than(self, count: int, reactor: Any) -> None:
        """Wait until more was received than so many, or for a while."""
        if self.count != count:
            return
        self._waiting = Deferred()
        with suppress(TimedOut):
            await self._waiting.addTimeout(QUIET, reactor)


@implementer(IOutflow)
class Outflow:
    """The bus's side of one sink.

    Args:
        standing: How the bridge is.
        log: The log.
        topics: What the sink gets.
        kept: Where its position is kept.
        graves: Take what the sink will never take.
        reactor: Tells the time.
    """

    def __init__(
        self, standing: Standing, log: ReadableLog, topics: Patterns, kept: KeptPosition, graves: Graves, reactor: Any
    ) -> None:
        self._standing = standing
        self._log = log
        self._topics = topics
        self._kept = kept
        self._graves = graves
        self._reactor = reactor
        self._news = News()
        log.follow(self._news)
        self._replay: IReplay | None = None
        self._found: deque[Outgoing] = deque()
        self._given: deque[Position] = deque()
        self._buried: set[Position] = set()
        self._confirmed: Position | None = None
        self._handed = self._read = Position("0", 0, 0, 0)
        self._written = -QUIET

    @property
    def position(self) -> Position | None:
        """Up to where the sink has everything."""
        return self._confirmed

    def measures(self) -> Sequence[Measure]:
        """How far the sink is behind."""
        end, at = self._log.tail.end, self._confirmed
        behind = max(0, end.offset - at.offset) if at is not None and at.epoch == end.epoch else 0
        return [Measure("behind_records", "Records of the log that the sink has not confirmed", behind)]

    def rewind(self) -> None:
        """A new life begins: what was not confirmed is given again.

        Raises:
            ConfigError: What was kept is no position.
        """
        self._close()
        self._found.clear()
        self._given.clear()
        self._buried.clear()
        if self._confirmed is None:
            # Before the foreign system is asked: its state would be told in place of this.
            self._confirmed = self._kept.load()
        if self._confirmed is not None:
            self._handed = self._read = self._confirmed

    def established(self) -> None:
        """The foreign system answers."""
        self._standing.established()

    def trouble(self, text: str) -> None:
        """Something is wrong while the life goes on."""
        self._standing.troubled(text)

    def take(self, limit: int, size: int) -> Deferred[Sequence[Outgoing]]:
        """The next events."""
        return Deferred.fromCoroutine(self._take(limit, size))

    def confirmed(self, position: Position) -> Deferred[None]:
        """Everything up to a position is where it belongs."""
        return Deferred.fromCoroutine(self._confirm(position))

    def bury(self, outgoing: Outgoing, reason: str) -> Deferred[None]:
        """Put an event in the dead queue."""
        self._standing.counts.dead += 1
        self._buried.add(outgoing.position)
        event = outgoing.event
        message = Message(
            event.payload,
            id=event.id,
            routing_key=event.topic[0] + "." + event.topic[1],
            headers={"towerbus-position": str(outgoing.position)},
            content_type="application/json",
            place=f"the sink {self._standing.title.name}",
        )
        return self._graves.bury(message, reason, self._standing.title.name)

    async def _take(self, limit: int, size: int) -> Sequence[Outgoing]:
        await self._begin()
        while not self._found:
            count = self._news.count
            if not await self._read_on():
                await self._pass_over()
                await self._news.later_than(count, self._reactor)
        taken: list[Outgoing] = []
        total = 0
        while self._found and len(taken) < limit:
            total += len(self._found[0].event.payload)
            if taken and total > size:
                break
            taken.append(self._found.popleft())
        self._given.extend(each.position for each in taken)
        self._handed = taken[-1].position
        return taken

    async def _begin(self) -> None:
        """Find out where the sink was; one that is new begins at the log's end."""
        if self._confirmed is not None:
            return
        await self._log.when_known()
        position = self._log.tail.end
        await self._kept.keep(position)
        _log.info("sink_begins: {name} at {position}", name=self._standing.title.name, position=str(position))
        self._confirmed = self._handed = self._read = position

    async def _read_on(self) -> bool:
        """Read a piece of the log.

        Returns:
            Whether there was one.
        """
        try:
            if self._replay is None:
                await self._log.when_known()
                self._replay = await self._log.replay(self._read)
            records = await self._replay.more()
        except PositionLostError as error:
            self._lose(error.lost)
            return True
        except BusUnavailable:
            # Why is told by the log itself, for all bridges.
            self._close()
            await deferLater(self._reactor, PAUSE, lambda: None)
            return True
        for record in records:
            self._sort(record)
        return bool(records)

    def _sort(self, record: Record) -> None:
        for number in record.behind(self._read) if record.epoch == self._read.epoch else range(len(record.events)):
            event = record.events[number]
            if self._topics.name(event.topic):
                self._found.append(Outgoing(event, record.position(number)))
        self._read = record.end

    def _lose(self, lost: Lost) -> None:
        self._standing.counts.lost += 1
        _log.error(
            "events_lost: {name} gets nothing of what stood from {after} to {until}: {reason}",
            name=self._standing.title.name,
            **lost._asdict(),
        )
        self._close()
        self._read = lost.until

    async def _pass_over(self) -> None:
        """Keep a position behind events that the sink does not want, so that retention does not overtake it."""
        if self._confirmed != self._handed or self._reactor.seconds() - self._written < QUIET:
            return
        if self._confirmed != self._read:
            self._handed = self._read
            await self._write(self._read)

    async def _confirm(self, position: Position) -> None:
        await self._write(position)
        while self._given:
            given = self._given.popleft()
            self._standing.counts.events += given not in self._buried
            self._buried.discard(given)
            if given == position:
                break

    async def _write(self, position: Position) -> None:
        await self._kept.keep(position)
        self._confirmed, self._written = position, self._reactor.seconds()

    def _close(self) -> None:
        replay, self._replay = self._replay, None
        if replay is not None:
            replay.close()
