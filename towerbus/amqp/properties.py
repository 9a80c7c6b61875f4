"""A message's properties: what is the same in each is encoded once, and what nobody asks for is not decoded.

pika encodes all properties of each message anew, piece by piece, and decodes all of each delivery. What is encoded and
decoded here, its own code encodes and decodes.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import BasicProperties, data
from twisted.logger import Logger

from towerbus.amqp.names import PERSISTENT
from towerbus.intake.messages import PACKED

UNREADABLE = "towerbus-unreadable-properties"
"""Header of a delivery whose properties could not be decoded; it holds their bytes, and stands alone."""
_FIELDS = frozenset(vars(BasicProperties()))
_time = struct.Struct(">Q")

_log = Logger()


class Received(BasicProperties):  # type: ignore[misc]
    """A delivery's properties; they are decoded when somebody asks for one of them.

    Args:
        encoded: Their bytes.
    """

    __slots__ = ("encoded",)

    def __init__(self, encoded: bytes) -> None:
        # Not pika's: what that sets is what is not known yet.
        self.encoded = encoded

    def __getattr__(self, name: str) -> Any:
        """Decode all of them: one that is not there yet was asked for."""
        if name not in _FIELDS:
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
