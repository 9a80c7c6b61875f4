"""A channel with Deferreds, on pika's own callbacks.

pika's Twisted channel mixes up returned and confirmed messages when several are in flight, drops what a cancelled
consumer had in hand, and queues deliveries without a bound; this one has no such parts. Nothing is ever cancelled on
it: whoever wants no more deliveries closes the channel (pika rejects what still comes to a cancelled consumer, and a
stream answers that by closing the connection).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pika import BasicProperties, exceptions
from pika.channel import Channel as PikaChannel
from twisted.internet.defer import Deferred, fail

from towerbus.amqp.errors import ChannelClosed, Unpublished
from towerbus.amqp.names import OFFSET
from towerbus.amqp.properties import Stamped
from towerbus.amqp.publishing import content_frames, publish_method

Deliver = Callable[["Delivery"], None]
"""Takes a delivery, at once; it must not raise."""

Consumers = dict[tuple[int, str], Deliver]
"""The consumers of a connection, by their channel's number and their tag."""

Confirms = dict[int, Callable[[int, bool], None]]
"""Who takes a connection's confirms, by their channels' numbers: a tag, and whether all before it are confirmed."""

Send = Callable[[Sequence[bytes]], None]
"""Sends frames of one connection together, and at once."""

_numbers = itertools.count(1)


class Delivery(NamedTuple):
    """A message from a queue.

    Attributes:
        tag: The channel's number for it, for `ack`.
        routing_key: The key it was published with.
        redelivered: Whether it was delivered before.
        properties: Headers, message_id, content_type, timestamp, ...
        body: Its bytes.
        exchange: The exchange it was published to; empty for the default one.
    """

    tag: int
    routing_key: str
    redelivered: bool
    properties: BasicProperties
    body: bytes
    exchange: str = ""


class Declared(NamedTuple):
    """A queue, as it was when it was declared.

    Attributes:
        messages: Messages in it; of a stream about what it holds.
        consumers: Consumers on it.
    """

    messages: int
    consumers: int


class Channel:
    """One channel. Made by `Connection.channel`.

    Every Deferred that is open when the channel closes fails with `ChannelClosed`.

    Args:
        channel: pika's, open.
        consumers: The connection's, where its own are put.
        confirms: The connection's, where it puts itself.
        send: Sends frames together.
        room: Bytes of a message's body in one frame, at the most.
    """

    def __init__(self, channel: PikaChannel, consumers: Consumers, confirms: Confirms, send: Send, room: int) -> None:
        self._channel = channel
        self._consumers = consumers
        self._confirms = confirms
        self._send = send
        self._room = room
        self._pending: set[Deferred[Any]] = set()
        self._published = 0
        self._unconfirmed: dict[int, tuple[Deferred[None], str]] = {}
        self._returned: dict[str, str] = {}
        self._cancelled: dict[str, Callable[[], None]] = {}
        self.error: ChannelClosed | None = None
        """Why it is closed; None while it is open."""
        self.on_closed: Callable[[ChannelClosed], None] | None = None
        """Called when it closes, but not by `close`."""
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._was_returned)
        channel.add_on_cancel_callback(self._was_cancelled)

    @property
    def unconfirmed(self) -> int:
        """Messages that were published and not yet confirmed."""
        return len(self._unconfirmed)

    async def declare_exchange(
        self, name: str, kind: str, arguments: Mapping[str, Any] | None = None, *, passive: bool = False
    ) -> None:
        """Declare a durable exchange; `passive` only asks whether it is there."""
        await self._rpc(
            self._channel.exchange_declare,
            exchange=name,
            exchange_type=kind,
            durable=True,
            passive=passive,
            arguments=dict(arguments or {}),
        )

    async def declare_queue(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, passive: bool = False
    ) -> Declared:
        """Declare a durable queue; `passive` only asks whether it is there."""
        frame = await self._rpc(
            self._channel.queue_declare, queue=name, durable=True, passive=passive, arguments=dict(arguments or {})
        )
        return Declared(frame.method.message_count, frame.method.consumer_count)

    async def bind_queue(self, queue: str, exchange: str, key: str) -> None:
        """Let an exchange route to a queue."""
        await self._rpc(self._channel.queue_bind, queue=queue, exchange=exchange, routing_key=key)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all that is in it."""
        await self._rpc(self._channel.queue_delete, queue=name)

    async def limit(self, prefetch: int) -> None:
        """Bound the deliveries that each consumer to come may have unacknowledged; a stream sends whole chunks."""
        await self._rpc(self._channel.basic_qos, prefetch_count=prefetch)

    async def confirm(self) -> None:
        """Have publishes confirmed; before the first one."""
        self._confirms[self._channel.channel_number] = self._confirmed
        await self._rpc(self._channel.confirm_delivery, ack_nack_callback=self._answered)

    async def consume(
        self,
        queue: str,
        deliver: Deliver,
        *,
        arguments: Mapping[str, Any] | None = None,
        cancelled: Callable[[], None] | None = None,
    ) -> None:
        """Get a queue's messages.

        Args:
            queue: The queue.
            deliver: Takes each delivery.
            arguments: Such as `OFFSET`.
            cancelled: Called when the broker ends it: the queue was deleted, or its node went down.
        """

        def never(*_: object) -> None:
            """Pika gets none of our deliveries: frames.py has them."""

        if self.error is not None:
            raise self.error
        tag = f"towerbus.{next(_numbers)}"
        self._consumers[self._channel.channel_number, tag] = deliver
        if cancelled is not None:
            self._cancelled[tag] = cancelled
        await self._rpc(
            self._channel.basic_consume,
            queue=queue,
            on_message_callback=never,
            consumer_tag=tag,
            arguments=dict(arguments or {}),
        )
        if OFFSET not in (arguments or {}):
            # pika cancels it before it closes the channel. The next in line of a queue with a single active consumer
            # would get what is new then, before it gets what this one gives back. A stream's gives nothing back, and
            # without the cancel RabbitMQ lists it for minutes after.
            self._channel._consumers.pop(tag, None)  # noqa: SLF001

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge a delivery, with `multiple` also all before it. A closed channel has nothing to acknowledge."""
        if self._channel.is_open:
            self._channel.basic_ack(tag, multiple)

    def publish(
        self, exchange: str, key: str, body: bytes, properties: BasicProperties | Stamped, *, mandatory: bool = True
    ) -> Deferred[None]:
        """Publish, after `confirm`.

        Args:
            exchange: The exchange.
            key: The routing key.
            body: The bytes.
            properties: With a `message_id` that no other message in flight has: a returned one is known by it.
            mandatory: Whether a message that reaches no queue is a failure.

        Returns:
            A Deferred that fires when the broker has confirmed it, and fails with `Unpublished` when it was returned or
            refused, and with `ChannelClosed` when nobody can say.
        """
        if self.error is not None:
            return fail(self.error)
        if not self._channel.is_open:
            return fail(ChannelClosed(0, "the channel is being closed"))
        number = self._channel.channel_number
        try:
            # As pika's `basic_publish` does, which encodes everything anew each time.
            begin = publish_method(number, exchange, key, mandatory)
            self._send([begin, *content_frames(number, body, properties, self._room)])
        except exceptions.AMQPError as error:
            return fail(_error(error))
        self._published += 1
        confirmed: Deferred[None] = Deferred()
        self._unconfirmed[self._published] = confirmed, properties.message_id or ""
        return confirmed

    def close(self) -> None:
        """Close it: its consumers get no more, and what they have not acknowledged goes back to the queues."""
        for key in self._own_consumers():
            # What is under way still comes, and pika would write a line in the log for each.
            self._consumers[key] = pass_over
        if self._channel.is_open:
            self._channel.close()

    def _own_consumers(self) -> list[tuple[int, str]]:
        return [key for key in self._consumers if key[0] == self._channel.channel_number]

    def _rpc(self, method: Callable[..., Any], **given: Any) -> Deferred[Any]:
        if self.error is not None:
            return fail(self.error)
        answer: Deferred[Any] = Deferred(self._pending.discard)

        def answered(frame: Any) -> None:
            if answer in self._pending:
                self._pending.remove(answer)
                answer.callback(frame)

        try:
            method(**given, callback=answered)
        except exceptions.AMQPError as error:
            return fail(_error(error))
        self._pending.add(answer)
        return answer

    def _answered(self, frame: Any) -> None:
        """What pika hears of a message: only refusals, for frames.py has the confirms."""
        method = frame.method
        self._confirmed(method.delivery_tag, method.multiple, refused=method.NAME == "Basic.Nack")

    def _confirmed(self, tag: int, multiple: bool, *, refused: bool = False) -> None:  # noqa: FBT001
        for each in [each for each in self._unconfirmed if not tag or each <= tag] if multiple else (tag,):
            confirmed, id_ = self._unconfirmed.pop(each, (None, ""))
            returned = self._returned.pop(id_, None) if self._returned else None
            if confirmed is None or confirmed.called:
                continue
            if refused:
                confirmed.errback(Unpublished("refused by the broker: a queue is full, or can't take it now"))
            elif returned is not None:
                confirmed.errback(Unpublished(f"returned by the broker: {returned}", returned=True))
            else:
                confirmed.callback(None)

    def _was_returned(self, _: PikaChannel, method: Any, properties: BasicProperties, body: bytes) -> None:  # noqa: ARG002
        self._returned[properties.message_id or ""] = f"{method.reply_code} {method.reply_text} {method.routing_key}"

    def _was_cancelled(self, frame: Any) -> None:
        cancelled = self._cancelled.pop(frame.method.consumer_tag, None)
        if cancelled is not None:
            cancelled()

    def _closed(self, _: PikaChannel, reason: Exception) -> None:
        self.error = error = _error(reason)
        self._confirms.pop(self._channel.channel_number, None)
        for key in self._own_consumers():
            del self._consumers[key]
        pending = [*self._pending, *(confirmed for confirmed, _ in self._unconfirmed.values())]
        self._pending.clear()
        self._unconfirmed.clear()
        self._returned.clear()
        for each in pending:
            if not each.called:
                each.errback(error)
        if self.on_closed is not None and not isinstance(reason, exceptions.ChannelClosedByClient):
            self.on_closed(error)


def pass_over(_: Delivery) -> None:
    """Take a delivery that nobody wants any more."""


def _error(reason: Exception) -> ChannelClosed:
    if isinstance(reason, exceptions.ChannelClosedByBroker | exceptions.ConnectionClosedByBroker):
        return ChannelClosed(reason.reply_code, reason.reply_text)
    if isinstance(reason, exceptions.ChannelClosedByClient):
        return ChannelClosed(0, "the channel was closed")
    return ChannelClosed(0, str(reason) or type(reason).__name__)
