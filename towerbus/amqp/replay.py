"""One replay of a stream: from a position on to where the tail takes over, piece by piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Several
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.python.failure import Failure
from zope.interface import implementer

from towerbus.amqp.catchup import CatchUp, readable
from towerbus.amqp.connection import Connection
from towerbus.amqp.stream import PATIENCE, StreamReader
from towerbus.errors import BusUnavailable, PositionLostError
from towerbus.log.following import ANEW, RETENTION
from towerbus.log.interface import IReplay
from towerbus.log.pieces import from_tail, in_tail, size_of
from towerbus.log.record import Record
from towerbus.log.sequence import AnotherLog, Sequence, Stored, without_internal
from towerbus.log.tail import Tail
from towerbus.positions import Lost, Position

PIECE = 512 * 1024
"""Bytes in a piece, about; also what is read ahead of whoever reads."""
TURN = 4 * PIECE
"""Bytes after which a consumer makes way for those who wait for their turn."""
PREFETCH = 64
"""Records that may be under way beyond that."""
HELD = 10.0
"""Seconds that a consumer is kept for a reader that does not ask for more."""


@implementer(IReplay)
class StreamReplay:
    """One that reads; made by `AmqpLog.replay`.

    Args:
        tail: The newest records. What is behind its end is never given: those who follow get it from the log.
        source: Where a connection is to be had.
        after: Where it begins.
    """

    def __init__(self, tail: Tail, source: CatchUp, after: Position) -> None:
        self._tail = tail
        self._source = source
        self._after = after
        self._sequence = Sequence(after)
        self._reader: StreamReader | None = None
        self._found: deque[Record] = deque()
        self._size = self._turn = 0
        self._first: Deferred[Stored] | None = None
        self._room: Deferred[None] | None = None
        self._news: Deferred[None] | None = None
        self._failure: Exception | None = None
        self._seen = self._verified = -1
        self._held: Any = None
        self._closed = False

    def more(self) -> Deferred[Several[Record]]:
        """Read the next records."""
        return Deferred.fromCoroutine(self._read())

    def close(self) -> None:
        """Let go of the consumer."""
        self._closed = True
        self._let_go()
        if self._first is not None and not self._first.called:
            self._first.errback(BusUnavailable("it was closed"))
        self._tell()

    async def check(self) -> None:
        """Find the position in the stream, and begin to read behind it.

        Raises:
            PositionLostError: It is not there.
            BusUnavailable: The stream can't be read now.
        """
        connection = await self._source.enter()
        if self._closed:
            self._source.leave()
            return
        reader = self._reader = StreamReader(self._arrived, self._ended, prefetch=PREFETCH)
        self._sequence, self._seen, self._turn = Sequence(self._after), -1, 0
        found = self._first = Deferred()
        try:
            first = await self._open(reader, connection, found)
        except (PositionLostError, CancelledError):
            self._let_go()
            raise
        except Exception as error:
            self._let_go()
            raise _unavailable(error) from error
        finally:
            self._first = None
            found.addErrback(_nothing)
        if self._reader is reader:
            self._take(first.offset, first.body)
            self._make_room()

    async def _open(self, reader: StreamReader, connection: Connection, found: Deferred[Stored]) -> Stored:
        if self._after.epoch != self._tail.begin.epoch:
            raise PositionLostError(await self._of_another_log(connection))
        if self._after.offset > self._tail.end.offset:
            raise PositionLostError(await self._of_another_copy(connection))
        await reader.open(connection, self._source.stream, self._after.offset)
        first = await found.addTimeout(PATIENCE, self._source.clock)
        lost = await self._misses(first, connection)
        if lost is not None:
            raise PositionLostError(lost, begins=first.offset > self._after.offset)
        return first

    async def _read(self) -> Several[Record]:
        while not self._closed:
            if self._found:
                return self._given(self._piece())
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            begin = self._handover()
            if begin is not None:
                self._let_go()
                return self._given(from_tail(self._tail, begin, PIECE))
            if self._reader is None:
                await self.check()
                continue
            self._news = Deferred()
            self._unhold()
            try:
                await self._news.addTimeout(PATIENCE, self._source.clock)
            except TimedOut as error:
                self._let_go()
                raise _unavailable(error) from error
        return ()

    def _handover(self) -> Position | None:
        """Where the tail takes over; None as long as it does not have all that is missing."""
        after, begin = self._after, self._tail.begin
        if in_tail(self._tail, after):
            return after
        # Everything before the tail was read, and the rest of it does not count.
        if after.epoch == begin.epoch and after <= begin and after.offset <= begin.offset <= self._seen:
            return begin
        return None

    def _given(self, records: Several[Record]) -> Several[Record]:
        if records:
            self._after = records[-1].end
        return records

    def _piece(self) -> Several[Record]:
        """What was read ahead; the consumer goes on, or makes way for others."""
        records = tuple(self._found)
        self._found.clear()
        self._turn += self._size
        self._size = 0
        if self._reader is not None:
            if self._turn >= TURN and self._source.waiting:
                self._let_go()
            else:
                self._hold()
                self._make_room()
        return records

    def _arrived(self, offset: int, body: bytes) -> Deferred[None] | None:
        if self._first is not None:
            self._room = Deferred()
            self._first.callback(Stored(offset, body))
            return self._room
        if self._sequence.leaps(offset) and offset > self._verified:
            # Read on from the last one that counts: if that is there, nothing is missing.
            self._verified = offset
            self._let_go()
        else:
            self._take(offset, body)
        self._tell()
        if self._size < PIECE or self._reader is None:
            return None
        self._room = Deferred()
        return self._room

    def _take(self, offset: int, body: bytes) -> None:
        if offset > self._tail.end.offset:
            self._let_go()
            return
        self._seen = offset
        before = self._found[-1].end if self._found else self._after
        try:
            step = self._sequence.take(offset, body)
        except AnotherLog as error:
            self._fail(PositionLostError(Lost(before, error.record.begin, ANEW)))
            return
        if step.lost is not None and offset != self._after.offset:
            self._fail(PositionLostError(step.lost._replace(after=before)))
        elif step.record is not None and step.record.end > before:
            self._found.append(step.record)
            self._size += size_of(step.record)

    async def _misses(self, first: Stored, connection: Connection) -> Lost | None:
        """What is lost, seeing the first record that came for the position; None where the position is there."""
        after, record = self._after, readable(first)
        here = after._replace(offset=first.offset, place=0)
        if record is not None and record.epoch != after.epoch:
            return Lost(after, record.begin, ANEW)
        if first.offset > after.offset:
            return Lost(after, here if record is None else record.begin, RETENTION)
        if record is None or record.term < after.term:
            # Nothing is behind the begin of a record that does not count.
            if not after.place:
                return None
            if record is None:
                return Lost(after, here, "the record of the position can't be read")
        if record.term != after.term:
            return await self._of_another_copy(connection)
        end = without_internal(record)[0].end
        return None if after <= end else Lost(after, end, "the position is not in the log")

    async def _of_another_copy(self, connection: Connection) -> Lost:
        until = await self._source.fork(connection, self._after.term, self._tail.end)
        return Lost(self._after, until, "the position is not in the log: it was restored from a copy")

    async def _of_another_log(self, connection: Connection) -> Lost:
        first = await self._source.one(connection, "first")
        until = self._tail.begin if first is None or first.epoch != self._tail.begin.epoch else first.begin
        return Lost(self._after, until, f"the position is of another log: {ANEW}")

    def _ended(self, reason: Failure) -> None:
        """The consumer is gone; what was read ahead stays good."""
        if self._first is not None:
            if not self._first.called:
                self._first.errback(reason)
        else:
            self._fail(_unavailable(reason.value))
            self._tell()

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._let_go()

    def _hold(self) -> None:
        """Keep the consumer for a while, for a reader that does not ask for more at once."""
        self._unhold()
        self._held = self._source.clock.callLater(HELD, self._forget)

    def _unhold(self) -> None:
        """The reader asks, or the consumer is gone: nothing is to be forgotten."""
        if self._held is not None:
            self._held.cancel()
            self._held = None

    def _forget(self) -> None:
        self._held = None
        self._let_go()

    def _let_go(self) -> None:
        """End the consumer, and the turn."""
        self._unhold()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
            self._source.leave()

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.called:
            news.callback(None)


def _unavailable(error: BaseException | None) -> BusUnavailable:
    reason = "the broker gives nothing" if isinstance(error, TimedOut) else str(error) or type(error).__name__
    return BusUnavailable(f"older records can't be read now: {reason}")


def _nothing(_: object) -> None:
    """It was told elsewhere."""
