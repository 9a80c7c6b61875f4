"""WebSocket frames (RFC 6455 section 5.2): as a server writes them, whole and unmasked; as most clients do. Pure."""

from __future__ import annotations

import struct

_SHORT = 126
_MEDIUM = 65536
_TEXT, _DEFLATED = 0x81, 0xC1
_MASKED, _MASK = 0x80, 4
_LEAST = 2 + _MASK
"""Bytes of a client's frame, at the least."""
PING = b"\x89\x00"
"""A ping without payload: one for all."""
_PONG = b"\x8a\x80"


def text_frame(payload: bytes, *, deflated: bool = False) -> bytes:
    """One text message in one frame; with RSV1 where the payload is a compressed one (RFC 7692 section 6)."""
    kind, size = _DEFLATED if deflated else _TEXT, len(payload)
    if size < _SHORT:
        return bytes((kind, size)) + payload
    if size < _MEDIUM:
        return struct.pack("!BBH", kind, 126, size) + payload
    return struct.pack("!BBQ", kind, 127, size) + payload


def whole_text(data: bytes, most: int) -> bytes | None:
    """The text of a message, where that is all that has come, in one masked frame.

    That is what a browser's `send` makes, unless compression was agreed on.

    Args:
        data: What has come, from the beginning of a frame on.
        most: Bytes in a message, at the most.

    Returns:
        The text in valid UTF-8; None for everything else, right or wrong.
    """
    if len(data) < _LEAST or data[0] != _TEXT:
        return None
    size, begin = data[1] - _MASKED, 2
    if size == _SHORT:
        size, begin = int.from_bytes(data[2:4]), 4
        if size < _SHORT:
            return None
    elif size > _SHORT:
        return None
    if size > most or len(data) != begin + _MASK + size:
        return None
    # As numbers, for Python has no other way to combine many bytes at once.
    mask = data[begin : begin + _MASK] * (size // _MASK + 1)
    number = int.from_bytes(data[begin + _MASK :]) ^ int.from_bytes(mask[:size])
    text = number.to_bytes(size)
    try:
        text.decode()
    except UnicodeDecodeError:
        return None
    return text


def is_pong(data: bytes) -> bool:
    """Whether all that has come is a client's answer to `PING`."""
    return len(data) == _LEAST and data.startswith(_PONG)
