"""A message's content on the wire: what is the same in each is encoded once, and what nobody asks for is not decoded.

pika encodes the method and the properties of each message anew, piece by piece, and decodes all properties of each
delivery. What is encoded and decoded here, its own code encodes and decodes.

The layout is that of the AMQP 0-9-1 specification, sections 2.3.5 and 4.2.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from pika import BasicProperties, data, frame, spec
from twisted.logger import Logger

from towerbus.intake.messages import PACKED

PERSISTENT = 2
UNREADABLE = "towerbus-unreadable-properties"
"""Header of a delivery whose properties could not be decoded; it holds their bytes, and stands alone."""

METHOD, HEADER, BODY = 1, 2, 3
"""Kinds of frames."""
FRAME_END = 0xCE
head = struct.Struct(">BHL")
"""What a frame begins with: its kind, its channel's number, and its payload's size."""
content = struct.Struct(">HHQ")
"""What a header begins with: its class, nothing, and the body's size."""
_BASIC = 60
_END = bytes([FRAME_END])
_METHODS = 256
"""Methods that are remembered, at the most: who chooses his keys one by one must not fill the memory."""
_time = struct.Struct(">Q")

_log = Logger()


class Received(BasicProperties):  # type: ignore[misc]
    """A delivery's properties; they are decoded when somebody asks for one of them.

    Args:
        encoded: Their bytes.
    """

    def __init__(self, encoded: bytes) -> None:
        # Not pika's: what that sets is what is not known yet.
        self.encoded = encoded

    def __getattr__(self, name: str) -> Any:
        """Decode all of them: one that is not there yet was asked for."""
        if "headers" in vars(self):
            raise AttributeError(name)
        super().__init__()
        try:
            self.decode(self.encoded)
        except Exception as error:  # noqa: BLE001 - whatever it is that can't be decoded
            _log.debug("amqp_unreadable: {error}", error=error)
            super().__init__(headers={UNREADABLE: self.encoded})
        return getattr(self, name)


class Stamp:
    """Properties of persistent messages that differ in their ids, and maybe their times.

    Args:
        content_type: The messages' content type.
    """

    def __init__(self, content_type: str) -> None:
        self._begin = _begin(content_type, None)
        self._begin_timed = _begin(content_type, 0)

    def __call__(self, message_id: str, timestamp: int | None = None) -> Stamped:
        """The properties of one message.

        Args:
            message_id: Its id.
            timestamp: Its time, in seconds since the epoch of Unix.
        """
        if timestamp is None:
            return Stamped(message_id, self._begin, b"")
        return Stamped(message_id, self._begin_timed, _time.pack(timestamp))

    def made(self, properties: BasicProperties) -> bool:
        """Whether a delivery's properties are such, without a time. Nothing else of them is known then."""
        return isinstance(properties, Received) and properties.encoded.startswith(self._begin)


class Stamped:
    """One message's properties, made by a `Stamp`."""

    __slots__ = ("_begin", "_end", "message_id")

    def __init__(self, message_id: str, begin: bytes, end: bytes) -> None:
        self.message_id = message_id
        self._begin = begin
        self._end = end

    def encode(self) -> list[bytes]:
        """Their bytes, in pieces, as pika's own properties give them."""
        pieces = [self._begin]
        data.encode_short_string(pieces, self.message_id)
        pieces.append(self._end)
        return pieces


def _begin(content_type: str, timestamp: int | None) -> bytes:
    """What stands before an id and its length."""
    made = BasicProperties(
        content_type=content_type, delivery_mode=PERSISTENT, message_id="", timestamp=timestamp
    ).encode()
    encoded: bytes = b"".join(made)
    return encoded[: -1 - (0 if timestamp is None else _time.size)]


EVENTS = Stamp(PACKED)
"""Properties of the messages that our emitters put in the intake."""


def frames(number: int, body: bytes, properties: BasicProperties | Stamped, room: int) -> list[bytes]:
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
    begin = head.pack(HEADER, number, content.size + len(encoded)) + content.pack(_BASIC, 0, size)
    made = [b"".join((begin, encoded, _END))]
    for at in range(0, size, room):
        part = body[at : at + room]
        made.append(b"".join((head.pack(BODY, number, len(part)), part, _END)))
    return made


@lru_cache(_METHODS)
def method(number: int, exchange: str, key: str, mandatory: bool) -> bytes:  # noqa: FBT001
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
