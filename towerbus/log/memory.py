"""`memory:`: the embedded log, in the memory of one process. Bounded in bytes and in age; gone with the process."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from zope.interface import implementer

from towerbus.errors import PositionLostError
from towerbus.event import Event
from towerbus.intake.interface import IIntake
from towerbus.log.interface import ILog, ILogFollower
from towerbus.log.record import Record, batches
from towerbus.log.window import IdWindow
from towerbus.positions import Position, new_epoch

OVERHEAD = 200
"""Bytes that an event is counted as, beside its payload."""
TERM = 1
"""There is one writer, for the life of the log."""


@implementer(ILog, IIntake)
class MemoryLog:
    """The log and its intake at once: what is emitted is in the log in the same turn.

    Args:
        seconds: Tells the time, in seconds (`IReactorTime.seconds`, or `time.time`).
        max_bytes: Bytes that are kept, at the most; the newest record is kept whatever its size.
        max_age: Seconds that a record is kept, at the most.
    """

    def __init__(
        self, seconds: Callable[[], float], *, max_bytes: int = 64 * 1024 * 1024, max_age: float = 3600.0
    ) -> None:
        self.epoch = new_epoch()
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._records: deque[tuple[Record, int, float]] = deque()
        self._size = 0
        self._next = 0
        self._end = Position(self.epoch, TERM, 0, 0)
        self._window = IdWindow()
        self._followers: list[ILogFollower] = []

    def emit(self, events: Sequence[Event]) -> Deferred[None]:
        """Take events in; one whose id is in the log already is confirmed and not repeated."""
        fresh = self._window.unseen(events)
        self._window.add(fresh)
        return self.append(fresh)

    def append(self, events: Sequence[Event]) -> Deferred[None]:
        """Write events; the Deferred waits while the followers have too much in hand."""
        waits: list[Deferred[None]] = []
        for batch in batches(events):
            record = Record(self.epoch, TERM, self._next, batch)
            self._keep(record)
            for follower in self._followers:
                wait = follower.received(record)
                if wait is not None:
                    waits.append(wait)
        if not waits:
            return succeed(None)
        return DeferredList(waits).addCallback(lambda _: None)

    def follow(self, follower: ILogFollower) -> None:
        """Hand every record from now on to the follower."""
        self._followers.append(follower)

    def end(self) -> Position:
        """The position of the last event."""
        return self._end

    def replay(self, after: Position) -> Deferred[list[Record]]:
        """Read what stands behind a position, from memory."""
        self._let_go()
        if (after.epoch, after.term) != (self.epoch, TERM):
            return fail(PositionLostError("the position is of another log: this one began when the server started"))
        if after > self._end:
            return fail(PositionLostError("the position is past the end of the log"))
        first = self._records[0][0].offset if self._records else self._next
        if after.offset < first and self._next:
            return fail(PositionLostError(f"the log is kept for {self._max_age:g} s and {self._max_bytes} bytes only"))
        start = bisect_left(self._records, after.offset, key=lambda kept: kept[0].offset)
        return succeed([record for record, _, _ in islice(self._records, start, None)])

    def _keep(self, record: Record) -> None:
        size = sum(len(event.payload) + OVERHEAD for event in record.events)
        self._records.append((record, size, self._seconds()))
        self._size += size
        self._next += 1
        self._end = record.last
        self._let_go()

    def _let_go(self) -> None:
        oldest = self._seconds() - self._max_age
        while self._records and (
            self._records[0][2] < oldest or (self._size > self._max_bytes and len(self._records) > 1)
        ):
            self._size -= self._records.popleft()[1]
