"""The broker's bytes, cut into frames. Deliveries and confirms are taken here; every other frame is for pika.

A delivery costs a fraction so: pika copies for each frame all that it has not read yet, decodes all properties of each
message, and looks for callbacks by name. And where it can't decode a message's properties (a time in the headers that
no clock has, tables nested too deep) it ends the connection; the message is then delivered again, so whoever may
publish to a queue could stop for ever whoever reads it. Here such properties are replaced by one header, `UNREADABLE`
(properties.py), that holds their bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pika import BasicProperties

from towerbus.amqp.channel import Confirms, Consumers, Delivery
from towerbus.amqp.layout import BODY, FRAME_END, HEADER, METHOD, OVERHEAD, content_head, frame_head
from towerbus.amqp.properties import Received

_DELIVER = b"\x00\x3c\x00\x3c"
"""Class 60, method 60."""
_ACK = b"\x00\x3c\x00\x50"
"""Class 60, method 80."""
_deliver = struct.Struct(">QB")
_ack = struct.Struct(">QB")


class _Begun:
    """A delivery of which not everything is there."""

    __slots__ = ("consumer", "exchange", "missing", "parts", "properties", "redelivered", "routing_key", "tag")

    def __init__(self, consumer: str, tag: int, redelivered: bool, exchange: str, routing_key: str) -> None:  # noqa: FBT001
        self.consumer = consumer
        self.tag = tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = _NONE
        self.missing = 0
        self.parts: list[bytes] = []


_NONE = BasicProperties()


class Frames:
    """Cuts what one connection receives.

    Args:
        consumers: Who takes the deliveries; those of others are for pika.
        confirms: Who takes the confirms, by their channels' numbers; those of others are for pika.
        other: Takes each frame that is neither.
    """

    def __init__(self, consumers: Consumers, confirms: Confirms, other: Callable[[bytes], None]) -> None:
        self._consumers = consumers
        self._confirms = confirms
        self._other = other
        self._begun: dict[int, _Begun] = {}
        self._rest = b""
        self.taken = 0
        """Bytes in frames that `other` did not get."""

    def received(self, data: bytes) -> None:
        """Take what has come from the broker."""
        if self._rest:
            data = self._rest + data
        begin, end = 0, len(data)
        while end - begin >= frame_head.size:
            kind, number, size = frame_head.unpack_from(data, begin)
            after = begin + OVERHEAD + size
            if after > end:
                break
            if data[after - 1] == FRAME_END and self._take(kind, number, data, begin + frame_head.size, after - 1):
                self.taken += after - begin
            else:
                self._other(data[begin:after])
            begin = after
        self._rest = data[begin:]

    def left(self) -> bytes:
        """Give away the beginning of a frame whose end is not here."""
        rest, self._rest = self._rest, b""
        return rest

    def _take(self, kind: int, number: int, data: bytes, begin: int, end: int) -> bool:
        """Take a frame's payload, `data[begin:end]`, if it is for us."""
        if kind == METHOD:
            if data.startswith(_DELIVER, begin):
                return self._begin(number, data, begin + 4)
            return data.startswith(_ACK, begin) and self._confirm(number, data, begin + 4)
        begun = self._begun.get(number)
        if begun is None:
            return False
        if kind == HEADER:
            _, _, begun.missing = content_head.unpack_from(data, begin)
            begun.properties = Received(data[begin + content_head.size : end])
        elif kind == BODY:
            begun.parts.append(data[begin:end])
            begun.missing -= end - begin
        else:
            return False
        if not begun.missing:
            self._finish(number, begun)
        return True

    def _confirm(self, number: int, data: bytes, at: int) -> bool:
        confirmed = self._confirms.get(number)
        if confirmed is None:
            return False
        tag, multiple = _ack.unpack_from(data, at)
        confirmed(tag, bool(multiple))
        return True

    def _begin(self, number: int, data: bytes, at: int) -> bool:
        consumer, at = _short(data, at)
        if (number, consumer) not in self._consumers:
            return False
        tag, redelivered = _deliver.unpack_from(data, at)
        exchange, at = _short(data, at + _deliver.size)
        routing_key, _ = _short(data, at)
        self._begun[number] = _Begun(consumer, tag, bool(redelivered), exchange, routing_key)
        return True

    def _finish(self, number: int, begun: _Begun) -> None:
        del self._begun[number]
        deliver = self._consumers.get((number, begun.consumer))
        if deliver is not None:
            body = begun.parts[0] if len(begun.parts) == 1 else b"".join(begun.parts)
            deliver(Delivery(begun.tag, begun.routing_key, begun.redelivered, begun.properties, body, begun.exchange))


def _short(data: bytes, at: int) -> tuple[str, int]:
    """A short string, and where it ends."""
    begin = at + 1
    end = begin + data[at]
    return data[begin:end].decode("utf-8", "backslashreplace"), end
