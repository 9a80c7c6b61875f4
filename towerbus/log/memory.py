"""`memory:`: the embedded log, in the memory of one process. Bounded in bytes and in age; gone with the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from zope.interface import implementer

from towerbus.errors import PositionLostError
from towerbus.event import Event
from towerbus.intake.interface import IIntake
from towerbus.log.followers import Followers
from towerbus.log.interface import ILog, ILogFollower, IReplay
from towerbus.log.record import Record, batches
from towerbus.log.tail import Tail
from towerbus.log.window import IdWindow
from towerbus.positions import Lost, Position, new_epoch

MEMORY_BYTES = 64 * 1024 * 1024
"""Bytes that are kept, unless configured otherwise."""
MEMORY_AGE = 3600.0
"""Seconds that they are kept, unless configured otherwise."""
TERM = 1
"""There is one writer, for the life of the log."""


@implementer(ILog, IIntake)
class MemoryLog:
    """The log and its intake at once: what is emitted is in the log in the same turn. All of it is tail.

    Args:
        seconds: Tells the time, in seconds that never jump (`IReactorTime.seconds`, or `time.monotonic`).
        max_bytes: Bytes that are kept, at the most; the newest record is kept whatever its size.
        max_age: Seconds that a record is kept, at the most.
    """

    def __init__(
        self, seconds: Callable[[], float], *, max_bytes: int = MEMORY_BYTES, max_age: float = MEMORY_AGE
    ) -> None:
        self._kept_for = f"the log is kept for {max_age:g} s and {max_bytes} bytes only"
        begin = Position(new_epoch(), TERM, 0, 0)
        self.tail = Tail(begin, max_bytes=max_bytes, max_age=max_age, seconds=seconds)
        self._next = 0
        self._window = IdWindow()
        self._followers = Followers()

    def emit(self, events: Sequence[Event]) -> Deferred[None]:
        """Take events in; one whose id is in the log already is confirmed and not repeated.

        The Deferred waits while the followers have too much in hand.
        """
        fresh = self._window.unseen(events)
        self._window.add(fresh)
        waits: list[Deferred[None]] = []
        for batch in batches(fresh):
            record = Record(self.tail.begin.epoch, TERM, self._next, batch)
            self._next += 1
            self.tail.append(record)
            wait = self._followers.deliver(record)
            if not wait.called:
                waits.append(wait)
        return gatherResults(waits).addCallback(lambda _: None) if waits else succeed(None)

    def follow(self, follower: ILogFollower) -> None:
        """Hand every record from now on to the follower."""
        self._followers.add(follower)

    def replay(self, after: Position) -> Deferred[IReplay]:
        """Read what stands behind a position, from memory."""
        try:
            if not self.tail.covers(after):
                raise PositionLostError(Lost(after, self.tail.begin, self._kept_for), begins=True)
        except PositionLostError as error:
            return fail(error)
        return succeed(_Replay(self.tail, after))


@implementer(IReplay)
class _Replay:
    """Reads the tail, all that there is at once."""

    def __init__(self, tail: Tail, after: Position) -> None:
        self._tail = tail
        self._after = after

    def more(self) -> Deferred[Sequence[Record]]:
        """Read the next records."""
        try:
            if not self._tail.covers(self._after):
                lost = Lost(self._after, self._tail.begin, "the log let go of it meanwhile")
                raise PositionLostError(lost, begins=True)
        except PositionLostError as error:
            return fail(error)
        records = self._tail.records(self._after)
        self._after = self._tail.end
        return succeed(records)

    def close(self) -> None:
        """There is nothing to let go of."""
