"""One session of an emitter on pika's own I/O loop, for programs without a reactor; it runs in the loop's thread.

pika's blocking connection would be less code, but it can neither be told to give up a broker that does not answer, nor
what the broker blocks while it waits for an answer.
"""

from __future__ import annotations

import ssl
from typing import Any, Protocol

from pika import BasicProperties, SelectConnection, SSLOptions, exceptions
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from towerbus.amqp.errors import ChannelClosed, Unpublished
from towerbus.amqp.greeting import expect_amqp
from towerbus.amqp.names import INTAKE, PERSISTENT, Names
from towerbus.amqp.parameters import parameters
from towerbus.amqp.silence import Silence
from towerbus.amqp.url import Broker
from towerbus.errors import ConfigError
from towerbus.intake.messages import PACKED

CONNECTS_WITHIN = 10.0
"""Seconds for the connection with its login, and again for what follows it."""
LINGER = 1.0
"""Seconds that the broker gets to take part in an end of ours."""
STALLED = 5.0
"""Seconds without an answer to a message, after which the connection is given up: a new one may do better."""
REFUSED = "refused by the broker: a queue is full, or can't take it now"


class Owner(Protocol):
    """Who is told what becomes of a session."""

    def established(self) -> None:
        """It can publish now."""

    def answered(self, error: Unpublished | None) -> None:
        """The message in flight was confirmed, or not taken."""

    def blocked(self, reason: str) -> None:
        """The broker takes nothing for a while, or, with an empty reason, takes messages again."""

    def over(self, reason: Exception) -> None:
        """The connection is gone, or never came about."""


class Session:
    """One connection, from the first packet to the last.

    Args:
        broker: Where.
        loop: pika's loop that runs it.
        owner: Who is told.

    Raises:
        ConfigError: A certificate file can't be used.
    """

    def __init__(self, broker: Broker, loop: IOLoop, owner: Owner) -> None:
        self._names = Names(broker.prefix)
        self._loop = loop
        self._owner = owner
        self._channel: Channel | None = None
        self._returned = ""
        self._reason: Exception | None = None
        self._blocked = False
        self._over = False
        self._timer: Any = None
        self._connection = SelectConnection(
            parameters(
                broker,
                "towerbus emitter",
                host=broker.host,
                port=broker.port,
                ssl_options=tls_options(broker) if broker.tls else None,
                socket_timeout=CONNECTS_WITHIN,
                stack_timeout=CONNECTS_WITHIN,
            ),
            on_open_callback=self._opened,
            on_open_error_callback=self._ended,
            on_close_callback=self._ended,
            custom_ioloop=loop,
        )
        Silence.watch(self._connection)
        expect_amqp(self._connection)

    def publish(self, id_: str, body: bytes) -> None:
        """Publish a message to the intake; the owner gets the answer, and waits for it before the next.

        Args:
            id_: Its id.
            body: Packed events.
        """
        self._returned = ""
        self._limit(STALLED, self._stalled)
        properties = events_properties(id_)
        try:
            assert self._channel is not None  # noqa: S101 - it is established
            self._channel.basic_publish(self._names.direct, INTAKE, body, properties, mandatory=True)
        except exceptions.AMQPError as error:
            self.end(error)

    def end(self, reason: Exception) -> None:
        """End the connection, in bounded time; the owner is told when it is over.

        Args:
            reason: What the owner is told, unless something was wrong before.
        """
        self._reason = self._reason or reason
        if self._over:
            return
        self._limit(LINGER, self.abort)
        if not self._connection.is_closing and not self._connection.is_closed:
            self._connection.close()

    def abort(self) -> None:
        """End the connection without the broker's help."""
        if not self._over:
            self._connection._terminate_stream(self._reason or ConnectionError("ended"))  # noqa: SLF001

    def forsake(self) -> None:
        """Close the socket, after a fork: the connection is the parent's, which must notice nothing of it."""
        transport = self._connection._transport  # noqa: SLF001
        sock = getattr(transport, "_sock", None)
        if sock is not None:
            sock.close()

    def _opened(self, connection: SelectConnection) -> None:
        self._limit(CONNECTS_WITHIN, self._silent)
        connection.add_on_connection_blocked_callback(lambda _, frame: self._block(frame.method.reason or "an alarm"))
        connection.add_on_connection_unblocked_callback(lambda *_: self._block(""))
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._was_returned)
        channel.confirm_delivery(self._answered, callback=self._confirming)

    def _confirming(self, _: Any) -> None:
        assert self._channel is not None  # noqa: S101 - it has just answered
        # Asking whether they are there needs no permission.
        self._channel.exchange_declare(self._names.direct, passive=True, callback=self._exchange_found)

    def _exchange_found(self, _: Any) -> None:
        assert self._channel is not None  # noqa: S101 - it has just answered
        self._channel.queue_declare(self._names.intake, passive=True, callback=self._established)

    def _established(self, _: Any) -> None:
        self._limit(0, None)
        self._owner.established()

    def _was_returned(self, _: Channel, method: Any, *__: object) -> None:
        self._returned = f"returned by the broker: {method.reply_code} {method.reply_text} {method.routing_key}"

    def _answered(self, frame: Any) -> None:
        self._limit(0, None)
        error = None
        if frame.method.NAME == "Basic.Nack":
            error = Unpublished(REFUSED)
        elif self._returned:
            error = Unpublished(self._returned, returned=True)
        self._owner.answered(error)

    def _block(self, reason: str) -> None:
        self._blocked = bool(reason)
        self._owner.blocked(reason)

    def _stalled(self) -> None:
        if self._blocked:
            # The connection is well; the answer comes when the alarm is over.
            self._limit(STALLED, self._stalled)
            return
        self._reason = TimeoutError(f"no answer to a message for {STALLED:g} s")
        self.abort()

    def _silent(self) -> None:
        self._reason = TimeoutError(f"no answer within {CONNECTS_WITHIN:g} s")
        self.abort()

    def _channel_closed(self, _: Channel, reason: Exception) -> None:
        if isinstance(reason, exceptions.ChannelClosedByBroker):
            self.end(ChannelClosed(reason.reply_code, reason.reply_text))

    def _ended(self, _: SelectConnection, error: Exception) -> None:
        self._over = True
        self._limit(0, None)
        self._owner.over(self._reason or cause(error))

    def _limit(self, seconds: float, call: Any) -> None:
        """Have something called unless there is a new limit before; there is one limit at a time."""
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None
        if call is not None:
            self._timer = self._loop.call_later(seconds, call)


def cause(error: Exception) -> Exception:
    """What was wrong, below pika's wrappings."""
    while True:
        inner = getattr(error, "exceptions", None) or getattr(error, "args", ())
        below = getattr(error, "exception", None) or (inner[-1] if inner else None)
        if not isinstance(below, Exception):
            return error
        error = below


def tls_options(broker: Broker) -> SSLOptions:
    """How TLS is spoken: the certificate must be good, and for the broker's host; TLS 1.2 or later.

    Raises:
        ConfigError: A certificate file can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=broker.cacertfile or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if broker.certfile:
            context.load_cert_chain(broker.certfile, broker.keyfile or None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cacertfile, certfile or keyfile is not a PEM file that can be used: {error}") from error
    return SSLOptions(context, server_hostname=broker.host)


def events_properties(id_: str) -> BasicProperties:
    """The properties of a message of packed events: the worker knows them by their bytes (`properties.EVENTS`).

    Args:
        id_: The message's id.
    """
    return BasicProperties(content_type=PACKED, delivery_mode=PERSISTENT, message_id=id_)
