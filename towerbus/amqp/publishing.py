"""The frames of a message that is published. pika encodes the method of each message anew; here it is encoded once."""

from __future__ import annotations

from functools import lru_cache

from pika import BasicProperties, frame, spec

from towerbus.amqp.layout import BODY, FRAME_END, HEADER, content_head, frame_head
from towerbus.amqp.properties import Stamped

_BASIC = 60
"""The class of what is about messages."""
_END = bytes([FRAME_END])
_METHODS = 256
"""Methods that are remembered, at the most: who chooses his keys one by one must not fill the memory."""


@lru_cache(_METHODS)
def publish_method(number: int, exchange: str, key: str, mandatory: bool) -> bytes:  # noqa: FBT001
    """The frame that begins a message.

    Args:
        number: The channel's.
        exchange: The exchange.
        key: The routing key.
        mandatory: Whether a message that reaches no queue comes back.

    Raises:
        AMQPError: A text is too long.
    """
    made: bytes = frame.Method(
        number, spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    ).marshal()
    return made


def content_frames(number: int, body: bytes, properties: BasicProperties | Stamped, room: int) -> list[bytes]:
    """The frames of a message behind its method.

    Args:
        number: The channel's.
        body: The bytes.
        properties: The properties.
        room: Bytes of the body in one frame, at the most.

    Raises:
        AMQPError: A text is too long.
    """
    size, encoded = len(body), b"".join(properties.encode())
    begin = frame_head.pack(HEADER, number, content_head.size + len(encoded)) + content_head.pack(_BASIC, 0, size)
    made = [b"".join((begin, encoded, _END))]
    for at in range(0, size, room):
        part = body[at : at + room]
        made.append(b"".join((frame_head.pack(BODY, number, len(part)), part, _END)))
    return made
