"""Reading a stream, on a channel of its own.

What a stream does over AMQP 0-9-1 (tried with RabbitMQ 3.10): a consumer needs a prefetch and acknowledges by hand,
which is nothing but credit; a whole chunk comes whatever the prefetch is. Whoever asks for an offset that retention has
taken gets the first that is there, and one whom it overtakes later is set behind the gap, both without a word
(log/following.py notices); now and then such a one gets nothing more at all, whatever its credit. Past the end nothing
ever comes. Offsets that RabbitMQ uses up itself are never delivered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from towerbus.amqp.channel import Channel, Delivery
from towerbus.amqp.connection import Connection
from towerbus.amqp.names import OFFSET
from towerbus.amqp.properties import Received
from towerbus.amqp.tables import long_header
from towerbus.errors import TowerbusError
from towerbus.log.sequence import Stored

PREFETCH = 200
"""Records that may be under way, and are held for a follower that asks to wait. A worker packs 64 KiB in one (these are
13 MB then), or a single event that is larger."""
PATIENCE = 5.0
"""Seconds for a record that has to be there."""

_NAME = OFFSET.encode()

Offset = int | Literal["first", "last", "next"]
Deliver = Callable[[int, bytes], Deferred[None] | None]
"""Takes the offset and the bytes of the next record; a Deferred asks to wait for it before the one after that."""


class StreamGone(TowerbusError):
    """The broker ended a consumer: the stream was deleted, or its node went down."""


class StreamSilent(TowerbusError):
    """A record that has to be there does not come."""


class NotAStream(TowerbusError):
    """A delivery without an offset: what has the stream's name is a queue of another kind."""


class StreamReader:
    """One consumer.

    Args:
        deliver: Takes the records, in order.
        ended: Called at most once, with the reason, when no more come and `close` was not called: the channel or the
            connection is gone, the stream is, or `deliver` has failed.
        prefetch: Records that may be under way; more only where a chunk has more.
    """

    def __init__(self, deliver: Deliver, ended: Callable[[Failure], object], *, prefetch: int = PREFETCH) -> None:
        self._deliver = deliver
        self._ended = ended
        self._prefetch = prefetch
        self._channel: Channel | None = None
        self._closed = False
        self._waiting = False
        self._held: deque[Delivery] = deque()
        self._owed = 0

    @property
    def paused(self) -> bool:
        """Whether it waits for whoever takes the records."""
        return self._waiting

    async def open(self, connection: Connection, stream: str, offset: Offset) -> None:
        """Begin to read.

        Args:
            connection: Where.
            stream: The stream's name.
            offset: Where to begin; "last" is the beginning of the last chunk.

        Raises:
            ChannelClosed: The broker refuses.
        """
        channel = await connection.channel(vital=False)
        if self._closed:
            channel.close()
            return
        self._channel = channel
        channel.on_closed = self._end
        await channel.limit(self._prefetch)
        await channel.consume(stream, self._arrived, arguments={OFFSET: offset}, cancelled=self._cancelled)

    async def settle(self) -> None:
        """Wait until all is here that the broker had in hand for us when it sent the last record that came.

        A channel answers behind what it has delivered: the whole chunk, and what else the prefetch allowed.
        """
        if self._channel is not None:
            await self._channel.limit(self._prefetch)

    def close(self) -> None:
        """Read no more."""
        self._closed = True
        self._held.clear()
        if self._channel is not None:
            self._channel.on_closed = None
            self._channel.close()

    def _arrived(self, delivery: Delivery) -> None:
        if self._waiting:
            self._held.append(delivery)
        elif not self._closed:
            self._hand_on(delivery)

    def _hand_on(self, delivery: Delivery) -> None:
        try:
            wait = self._deliver(offset_of(delivery), delivery.body)
        except Exception:  # noqa: BLE001 - pika would end the connection, and say nothing
            self._end(Failure())
            return
        if self._closed:
            return
        self._owed += 1
        if wait is not None and not wait.called:
            self._waiting = True
            wait.addBoth(self._go_on, delivery.tag)
        else:
            self._acknowledge(delivery.tag)

    def _go_on(self, _: object, tag: int) -> None:
        self._waiting = False
        if self._closed:
            return
        self._acknowledge(tag)
        while self._held and not self._waiting and not self._closed:
            self._hand_on(self._held.popleft())

    def _acknowledge(self, tag: int) -> None:
        if self._owed * 2 >= self._prefetch and self._channel is not None:
            self._owed = 0
            self._channel.ack(tag, multiple=True)

    def _cancelled(self) -> None:
        self._end(Failure(StreamGone("the broker ended the consumer: the stream was deleted, or its node went down")))

    def _end(self, reason: Failure | Exception) -> None:
        if not self._closed:
            self.close()
            self._ended(reason if isinstance(reason, Failure) else Failure(reason))


def offset_of(delivery: Delivery) -> int:
    """Where a delivery from a stream stands in it.

    Raises:
        NotAStream: The broker did not say.
    """
    properties = delivery.properties
    # Nothing else is of interest; and whoever published it may have given it headers that pika can't decode.
    offset = long_header(properties.encoded, _NAME) if isinstance(properties, Received) else None
    if offset is None:
        raise NotAStream("what is delivered has no offset: it does not come from a stream")
    return offset


async def read(connection: Connection, stream: str, offset: Offset, clock: Any, *, until: int = 0) -> list[Stored]:
    """Read some records, and no more.

    Args:
        connection: Where.
        stream: The stream's name.
        offset: Where to begin.
        clock: Bounds the wait for each of them.
        until: The offset to reach.

    Returns:
        The records, at least one; at the end of the log also all that came after `until` was reached.

    Raises:
        StreamSilent: Nothing came for `PATIENCE`.
        StreamGone: There is no stream any more.
        ChannelClosed: The broker refuses, or the connection is gone.
    """
    found: list[Stored] = []
    reached: Deferred[None] = Deferred()

    def deliver(at: int, body: bytes) -> None:
        found.append(Stored(at, body))
        if late.active():
            late.reset(PATIENCE)
        if at >= until and not reached.called:
            reached.callback(None)

    def fail(reason: Any) -> None:
        if not reached.called:
            reached.errback(reason)

    silent = StreamSilent(f"nothing is to be read from {offset} on: {stream} is empty, or stuck")
    late = clock.callLater(PATIENCE, fail, silent)
    reader = StreamReader(deliver, fail, prefetch=PREFETCH if until else 1)
    try:
        Deferred.fromCoroutine(reader.open(connection, stream, offset)).addErrback(fail)
        await reached
        await reader.settle()
    finally:
        reader.close()
        reached.addErrback(lambda _: None)
        if late.active():
            late.cancel()
    return found


async def read_end(connection: Connection, stream: str, clock: Any) -> Stored:
    """The last record of a stream: all that was in it when this was called is at or before it.

    Raises:
        StreamSilent: Nothing came for `PATIENCE`: it is empty, or stuck.
        StreamGone: There is no stream any more.
        ChannelClosed: The broker refuses, or the connection is gone.
    """
    return (await read(connection, stream, "last", clock))[-1]
