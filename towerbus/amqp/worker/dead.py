"""Dead letters: how a message that can't be taken is kept in the dead queue.

Its body and its properties stay as they were, with headers added that say why it is there. Some properties would do
something when it is published again, so their values are kept in headers instead: `user_id` (RabbitMQ refuses another
user's), `expiration` (it would vanish) and the header `CC` (it would also go to other queues: the log, even).
"""

from __future__ import annotations

from typing import Any

from pika import BasicProperties

from towerbus.amqp.channel import Delivery
from towerbus.amqp.names import PERSISTENT

REASON = "towerbus-reason"
ROUTING_KEY = "towerbus-routing-key"
EXCHANGE = "towerbus-exchange"
TIME = "towerbus-time"
"""Seconds since the epoch of Unix, when it was put there."""
HEADERS = "towerbus-headers"
"""The headers as a text for a person, where they can't be published as they were."""

_MAX_TEXT = 500
_KEPT = (
    "content_type",
    "content_encoding",
    "priority",
    "correlation_id",
    "reply_to",
    "message_id",
    "timestamp",
    "type",
    "app_id",
)


def properties(delivery: Delivery, reason: str, now: float, frame_max: int) -> BasicProperties:
    """The properties of a dead letter.

    Args:
        delivery: The message.
        reason: Why it can't be taken.
        now: Seconds since the epoch of Unix.
        frame_max: Bytes in a frame, at the most, as it was agreed with the broker.
    """
    given: Any = delivery.properties
    ours = {
        REASON: reason[:_MAX_TEXT],
        ROUTING_KEY: delivery.routing_key,
        EXCHANGE: delivery.exchange,
        TIME: int(now),
    }
    for name in ("user_id", "expiration"):
        if (value := getattr(given, name)) is not None:
            ours[f"towerbus-{name.replace('_', '-')}"] = value
    headers = {
        (f"towerbus-{key}" if key in {"CC", "BCC"} else key): value for key, value in (given.headers or {}).items()
    }
    kept = {name: getattr(given, name) for name in _KEPT}
    made = BasicProperties(headers=headers | ours, delivery_mode=PERSISTENT, **kept)
    if _fits(made, frame_max):
        return made
    return BasicProperties(headers=ours | {HEADERS: _shown(given.headers)}, delivery_mode=PERSISTENT, **kept)


def _shown(headers: object) -> str:
    try:
        return str(headers)[:_MAX_TEXT]
    except RecursionError:
        return "nested too deep"


def _fits(made: BasicProperties, frame_max: int) -> bool:
    """Whether properties can be published: pika can't write all that it can read, nor cut a header in two."""
    try:
        size = sum(map(len, made.encode()))
    except Exception:  # noqa: BLE001 - whatever it is that can't be written
        return False
    return size + 32 <= frame_max
