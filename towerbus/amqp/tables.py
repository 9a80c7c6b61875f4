"""One header out of properties that pika can't decode. Pure.

Whoever publishes a message chooses the values of its headers, and what stands inside those may look like anything: so
the table is walked, header by header, and no value is looked into.

The layout is that of the AMQP 0-9-1 specification, sections 4.2.5 and 4.2.6, with RabbitMQ's types of values.
"""

from __future__ import annotations

import struct

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS = 0x8000, 0x4000, 0x2000
_SIZES = {
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    ord("D"): 5,
    **dict.fromkeys(b"lLdT", 8),
    ord("V"): 0,
}
"""Bytes of a value, by its type; the others begin with their size, in 4 bytes."""
_SIZED = b"SxFA"
_LONG = ord("l")
_flags = struct.Struct(">H")
_size = struct.Struct(">L")
_long = struct.Struct(">q")


def long_header(properties: bytes, name: bytes) -> int | None:
    """A header that is a signed 64-bit integer.

    Args:
        properties: A message's properties, as they are in the frame.
        name: The header's.

    Returns:
        Its value; None where it is not there, or what stands before it is not to be understood.
    """
    try:
        at, end = _table(properties)
        while at < end:
            key, at = properties[at + 1 : at + 1 + properties[at]], at + 1 + properties[at]
            kind, at = properties[at], at + 1
            if key == name and kind == _LONG:
                return int(_long.unpack_from(properties, at)[0])
            at += 4 + _size.unpack_from(properties, at)[0] if kind in _SIZED else _SIZES[kind]
    except (IndexError, KeyError, struct.error):
        pass
    return None


def _table(properties: bytes) -> tuple[int, int]:
    """Where the headers begin, and where they end."""
    (flags,) = _flags.unpack_from(properties)
    at = _flags.size
    for flag in (_CONTENT_TYPE, _CONTENT_ENCODING):
        if flags & flag:
            at += 1 + properties[at]
    if not flags & _HEADERS:
        return at, at
    return at + _size.size, at + _size.size + _size.unpack_from(properties, at)[0]
