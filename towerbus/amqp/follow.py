"""Following the log on one connection: finds out where to begin, and keeps a consumer there.

The stream is never declared here: that would hide its loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.amqp.connection import Connection
from towerbus.amqp.stall import StallWatch
from towerbus.amqp.stream import StreamReader, read, read_end
from towerbus.amqp.topology import exists
from towerbus.log.following import Following, Move, Start
from towerbus.log.sequence import Step, Stored
from towerbus.log.tail import OVERHEAD

SAMPLE = 64
"""Records that are read first, to see how large they are."""
MAX_WARM = 20_000
"""Records that are read into the tail at the start, at the most."""
LOOK = 0.5
"""Seconds between two looks for what is not there yet."""
GRACE = 2.0
"""Seconds after which a log that ends before what was read is another copy, and not only behind."""
_log = Logger()


class Follow:
    """One connection's part of following the log.

    Args:
        connection: The connection.
        stream: The stream's name.
        clock: Calls later, and tells the time.
        following: What was read up to now.
        tail_bytes: Bytes of the newest records that are worth reading at the start.
        act: Does what a move says, but for opening another consumer; may ask to wait.
        settled: Called once, when what is read is what is in the log.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        clock: Any,
        following: Following,
        *,
        tail_bytes: int,
        act: Callable[[Move], Deferred[None] | None],
        settled: Callable[[], None],
    ) -> None:
        self.missing = ""
        """Why there is nothing to read yet."""
        self._connection = connection
        self._stream = stream
        self._clock = clock
        self._following = following
        self._tail_bytes = tail_bytes
        self._act = act
        self._settled: Callable[[], None] | None = settled
        self._reader: StreamReader | None = None
        self._turned: Deferred[Move] | None = None
        self._watch: StallWatch | None = None

    @property
    def paused(self) -> bool:
        """Whether whoever gets the records has asked to wait."""
        return self._reader is not None and self._reader.paused

    async def run(self) -> None:
        """Follow, until it is cancelled.

        Raises:
            StreamGone: The stream was deleted.
            StreamSilent: What is there is not given.
            ChannelClosed: The broker refuses, or the connection is gone.
        """
        try:
            await self._until_there()
            start = await self._start()
            while True:
                start = await self._follow(start)
        finally:
            self._close()

    def end(self) -> Deferred[Stored]:
        """Look up the last record of the log."""
        return Deferred.fromCoroutine(read_end(self._connection, self._stream, self._clock))

    async def _until_there(self) -> None:
        while not await exists(self._connection, self._stream):
            if not self.missing:
                self.missing = f"there is no stream {self._stream}: towerbus-worker makes it; does one run?"
                _log.warn("log_missing: {reason}", reason=self.missing)
            await self._pause()
        self.missing = ""

    async def _start(self) -> Start:
        end = await self.end()
        if not self._following.known:
            return self._following.begin(end, await self._worth(end))
        until = self._clock.seconds() + GRACE
        while (start := self._following.resume(end)) is None:
            if self._clock.seconds() >= until:
                return self._rewind(end)
            await self._pause()
            end = await self.end()
        return start

    async def _worth(self, end: Stored) -> int:
        """How many records fill the tail, judged by the newest."""
        first = max(0, end.offset + 1 - SAMPLE)
        sample = await read(self._connection, self._stream, first, self._clock, until=end.offset)
        size = sum(len(stored.body) + OVERHEAD for stored in sample)
        return min(max(SAMPLE, len(sample) * self._tail_bytes // size), MAX_WARM)

    async def _follow(self, start: Start) -> Start:
        """Read from an offset on; returns from where to read on with another consumer."""
        self._turned = Deferred()
        self._watch = StallWatch(self._clock, start, end=self.end, paused=lambda: self.paused, stalled=self._ended)
        reader = self._reader = StreamReader(self._arrived, self._ended)
        try:
            await reader.open(self._connection, self._stream, start)
            move = await self._turned
        finally:
            self._turned.addErrback(_nothing)
            self._close()
        if move.diverged:
            return self._rewind(await self.end())
        assert move.reopen is not None  # noqa: S101 - else it had not turned
        return move.reopen

    def _rewind(self, end: Stored) -> Start:
        lost = self._following.rewound(end)
        self._act(Move(Step(lost=lost)))
        return end.offset

    def _arrived(self, offset: int, body: bytes) -> Deferred[None] | None:
        if self._watch is not None:
            self._watch.heard(offset)
        move = self._following.take(offset, body)
        if move.diverged or move.reopen is not None:
            self._close()
            if self._turned is not None:
                self._turned.callback(move)
            return None
        if self._settled is not None and self._following.settled:
            settled, self._settled = self._settled, None
            settled()
        return self._act(move)

    def _ended(self, reason: Failure) -> None:
        if self._turned is not None and not self._turned.called:
            self._turned.errback(reason)

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def _pause(self) -> None:
        await deferLater(self._clock, LOOK, lambda: None)


def _nothing(_: object) -> None:
    """It was told elsewhere."""
