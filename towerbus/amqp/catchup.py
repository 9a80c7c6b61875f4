"""Reading what the tail no longer has: older records, from the stream, on a connection of its own.

The connection is there while somebody reads. A few replays have a consumer at a time, and the others wait for their
turn: the broker's work grows with each reader, so whoever serves many clients that are behind shares one among them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.logger import Logger

from towerbus.amqp.connection import Connection, connect
from towerbus.amqp.errors import trouble
from towerbus.amqp.stream import Offset, read
from towerbus.amqp.url import Broker
from towerbus.errors import BusUnavailable
from towerbus.log.packing import NotARecord, unpack
from towerbus.log.record import Record
from towerbus.log.sequence import Stored
from towerbus.positions import Position

READERS = 4
"""Replays that have a consumer at a time."""
IDLE = 30.0
"""Seconds that the connection is kept for whoever comes next."""
_log = Logger()


class CatchUp:
    """The connection, and the turns on it.

    Args:
        broker: Where.
        stream: The stream's name.
        reactor: Connects, and tells the time.
    """

    def __init__(self, broker: Broker, stream: str, reactor: Any) -> None:
        self.stream = stream
        self.clock = reactor
        self._broker = broker
        self._turns = DeferredSemaphore(READERS)
        self._opening = DeferredLock()
        self._connection: Connection | None = None
        self._connecting: Deferred[Connection] | None = None
        self._idle: Any = None
        self._closed = True

    @property
    def readers(self) -> int:
        """Replays that have a consumer now."""
        return self._turns.limit - self._turns.tokens

    @property
    def waiting(self) -> int:
        """Replays that wait for their turn."""
        return len(self._turns.waiting)

    async def enter(self) -> Connection:
        """Wait for a turn, which ends with `leave`.

        Raises:
            BusUnavailable: There is no connection to be had; there is no turn then.
        """
        await self._turns.acquire()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            return await self._connected()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """End a turn."""
        self._turns.release()
        if not self.readers and self._connection is not None and not self._closed:
            self._idle = self.clock.callLater(IDLE, self._let_go)

    def open(self) -> None:
        """Let others read from now on."""
        self._closed = False

    async def close(self) -> None:
        """End the connection, and let nobody read any more."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._connecting is not None:
            self._connecting.cancel()
        await self._opening.acquire()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.end()
        self._opening.release()

    async def one(self, connection: Connection, offset: Offset) -> Record | None:
        """The first record at or behind an offset; None where it can't be read."""
        return readable((await read(connection, self.stream, offset, self.clock))[0])

    async def fork(self, connection: Connection, term: int, end: Position) -> Position:
        """Where the first record begins that is of a higher term than a lost one; the end, where there is none.

        Terms rise along the log, so that it is found by halving.
        """
        if end.term <= term:
            return end
        low, high, found = 0, end.offset, end
        while low < high:
            middle = (low + high) // 2
            stored = (await read(connection, self.stream, middle, self.clock))[0]
            record = readable(stored)
            if record is not None and record.epoch == end.epoch and record.term > term:
                found, high = record.begin, middle
            else:
                low = stored.offset + 1
        return found

    async def _connected(self) -> Connection:
        await self._opening.acquire()
        try:
            if self._closed:
                raise BusUnavailable("the log is closed")
            if self._connection is None or self._connection.reason is not None:
                self._connecting = Deferred.fromCoroutine(connect(self._broker, "towerbus catch-up", self.clock))
                self._connection = await self._connecting
        except BusUnavailable:
            raise
        except Exception as error:
            raise BusUnavailable(f"older records can't be read now: {trouble(error, self._broker).text}") from error
        finally:
            self._connecting = None
            self._opening.release()
        return self._connection

    def _let_go(self) -> None:
        self._idle = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end().addErrback(lambda failure: _log.failure("catch_up_failed", failure))


def readable(stored: Stored) -> Record | None:
    """A stored record, unpacked; None where it can't be."""
    try:
        return unpack(stored.body, stored.offset)
    except NotARecord:
        return None
