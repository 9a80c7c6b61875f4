"""Sessions with a foreign broker, as lives of a bridge: one connection, held in order by `AmqpService`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from pika import BasicProperties
from twisted.internet.defer import Deferred, maybeDeferred

from towerbus.amqp.channel import Channel
from towerbus.amqp.connection import Connection
from towerbus.amqp.names import PERSISTENT
from towerbus.amqp.service import ENDING, AmqpService, State
from towerbus.amqp.url import Broker


class Told(Protocol):
    """Who is told how it goes: a bridge's `IFeed` or `IOutflow`."""

    def established(self) -> None:
        """There is a session."""

    def trouble(self, text: str) -> None:
        """There is none, or the broker takes nothing."""


Session = Callable[[Connection, Callable[[], None]], Coroutine[Any, Any, None]]


async def hold(broker: Broker, name: str, reactor: Any, session: Session, told: Told) -> None:
    """Hold a session with a broker, one after the other, until it is cancelled.

    Args:
        broker: Where.
        name: What it is for: in the log, and in the broker's list of connections.
        reactor: Connects, and tells the time.
        session: What is done on each connection, as `AmqpService` has it.
        told: Is told how it goes.
    """

    def changed() -> None:
        if service.blocked:
            told.trouble(f"the broker takes nothing: {service.blocked}")
        elif service.state is State.ESTABLISHED:
            told.established()
        elif service.state is State.WAITING and service.trouble != ENDING:
            told.trouble(service.trouble)

    service = AmqpService(broker, name, reactor, session)
    service.changed = changed
    service.startService()
    try:
        await Deferred()
    finally:
        service.changed = None
        await maybeDeferred(service.stopService)


def publish(
    channel: Channel,
    exchange: str,
    key: str,
    body: bytes,
    *,
    message_id: str,
    time: float,
    headers: dict[str, Any],
    mandatory: bool,
) -> Deferred[None]:
    """Publish JSON to a foreign exchange.

    Args:
        channel: With confirms.
        exchange: The exchange.
        key: The routing key.
        body: The JSON.
        message_id: Its id.
        time: When it happened, in seconds since the epoch of Unix.
        headers: What stands beside it.
        mandatory: Whether a message that reaches no queue is a failure.
    """
    properties = BasicProperties(
        content_type="application/json",
        delivery_mode=PERSISTENT,
        message_id=message_id,
        timestamp=int(time),
        headers=headers,
    )
    return channel.publish(exchange, key, body, properties, mandatory=mandatory)
