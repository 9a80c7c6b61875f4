"""The source `amqp`: a queue on any broker and virtual host, such as the callback queue of a runner.

A message is acknowledged when the bus has confirmed what became of it. Until then it belongs to the foreign queue: a
bridge that dies gets it again, with the same `message_id`, by which the bus drops the repeat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from towerbus.amqp.channel import Channel, Delivery
from towerbus.amqp.connection import Connection
from towerbus.amqp.errors import NOT_FOUND, ChannelClosed
from towerbus.amqp.foreign import hold
from towerbus.amqp.url import Broker
from towerbus.bridge.broker import broker, check, looked_at
from towerbus.bridge.interface import IFeed, ISource, Measure, Surroundings
from towerbus.bridge.message import Message
from towerbus.doctor import findings
from towerbus.doctor.findings import Finding
from towerbus.errors import TowerbusError

_log = Logger()


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[bridge.source]` of this kind.

    Attributes:
        url: The broker, `amqp://USER:PASSWORD@HOST/VHOST`, as the bus's `--bus`.
        queue: The queue. It must be there; it may be of any type but a stream.
        prefetch: Messages that may be under way.
    """

    url: str
    queue: str
    prefetch: int = 512

    def __post_init__(self) -> None:
        if not self.queue:
            raise ValueError("queue: got nothing, wanted the name of a queue")
        if not 1 <= self.prefetch <= 65535:  # noqa: PLR2004 - AMQP's own limit
            raise ValueError(f"prefetch: got {self.prefetch}, wanted a number from 1 to 65535")
        check(self.url)


def make(options: Options, surroundings: Surroundings) -> AmqpSource:
    """Make it.

    Raises:
        ConfigError: The URL is not right.
    """
    return AmqpSource(options, broker(options.url), surroundings)


class QueueCancelled(TowerbusError):
    """The broker ended the consumer: the queue was deleted, or its node went down."""


@implementer(ISource)
class AmqpSource:
    """Consumes the queue.

    Args:
        options: The configuration.
        broker: Where.
        surroundings: The bridge's.
    """

    def __init__(self, options: Options, broker: Broker, surroundings: Surroundings) -> None:
        self._options = options
        self._broker = broker
        self._around = surroundings
        self._waiting: deque[Delivery] = deque()
        self._anonymous = False

    async def run(self, feed: IFeed) -> None:
        """Consume until it is cancelled; a connection that is lost is followed by the next."""

        async def session(connection: Connection, established: Callable[[], None]) -> None:
            await _Consumer(self._options, connection, self._waiting, self._note).run(feed, established)

        await hold(self._broker, f"bridge {self._around.name} source", self._around.reactor, session, feed)

    def measures(self) -> Sequence[Measure]:
        """What waits here."""
        return [Measure("waiting_messages", "Foreign messages that wait for the bus", len(self._waiting))]

    def _note(self, delivery: Delivery) -> None:
        """Say it once where messages have no ids."""
        if delivery.properties.message_id is None and not self._anonymous:
            self._anonymous = True
            _log.info(
                "messages_without_ids: {name}: the mapping has to give an id, or those that are delivered again become "
                "two events",
                name=self._around.name,
            )


class _Consumer:
    """Consumes on one connection."""

    def __init__(
        self, options: Options, connection: Connection, waiting: deque[Delivery], note: Callable[[Delivery], None]
    ) -> None:
        self._options = options
        self._connection = connection
        self._waiting = waiting
        self._note = note
        self._news: Deferred[None] | None = None
        self._cancelled = False

    async def run(self, feed: IFeed, established: Callable[[], None]) -> None:
        self._waiting.clear()
        try:
            channel = await self._begin()
            established()
            while True:
                if not self._waiting:
                    await self._more()
                await self._carry(feed, channel)
        finally:
            self._waiting.clear()

    async def _begin(self) -> Channel:
        await self._check()
        channel = await self._connection.channel()
        await channel.limit(self._options.prefetch)
        await channel.consume(self._options.queue, self._arrived, cancelled=self._was_cancelled)
        return channel

    async def _check(self) -> None:
        """See that the queue is there, on a channel that may be closed for it. Asking needs no permission."""
        channel = await self._connection.channel(vital=False)
        try:
            await channel.declare_queue(self._options.queue, passive=True)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                raise TowerbusError(f"queue {self._options.queue!r} is not there: make it, or mend its name") from error
            raise
        channel.close()

    async def _carry(self, feed: IFeed, channel: Channel) -> None:
        batch = list(self._waiting)
        await feed.forward([message(delivery, self._options.queue) for delivery in batch])
        for _ in batch:
            self._waiting.popleft()
        channel.ack(batch[-1].tag, multiple=True)

    async def _more(self) -> None:
        if self._cancelled:
            raise QueueCancelled(
                f"queue {self._options.queue!r}: the broker ended the consumer: it was deleted, or its node went down"
            )
        self._news = Deferred()
        try:
            await self._news
        finally:
            self._news = None

    def _arrived(self, delivery: Delivery) -> None:
        self._note(delivery)
        self._waiting.append(delivery)
        self._rouse()

    def _was_cancelled(self) -> None:
        self._cancelled = True
        self._rouse()

    def _rouse(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.callback(None)


def message(delivery: Delivery, queue: str) -> Message:
    """What the mapping gets of a delivery.

    Args:
        delivery: It.
        queue: Where it came from.
    """
    properties: Any = delivery.properties
    at = properties.timestamp
    return Message(
        delivery.body,
        id=properties.message_id,
        routing_key=delivery.routing_key,
        headers=properties.headers or {},
        time=float(at) if isinstance(at, int) and at > 0 else None,
        content_type=properties.content_type or "",
        place=delivery.exchange or f"queue {queue}",
    )


async def look(options: Options, surroundings: Surroundings) -> Sequence[Finding]:
    """Look whether the queue is there."""

    async def see(connection: Connection, where: Broker) -> Sequence[Finding]:
        channel = await connection.channel(vital=False)
        try:
            messages, consumers = await channel.declare_queue(options.queue, passive=True)
        except ChannelClosed as error:
            return [findings.error("source", f"queue {options.queue!r}: {error}", "make the queue, or mend its name")]
        text = f"queue {options.queue!r} on {where} has {messages} messages and {consumers} consumers"
        return [findings.ok("source", text)]

    return await looked_at(options.url, "source", surroundings.reactor, see)
