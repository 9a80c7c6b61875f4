"""WebSocket frames as a server writes them (RFC 6455 section 5.2): whole, unmasked. Pure."""

from __future__ import annotations

import struct

_SHORT = 126
_MEDIUM = 65536
_TEXT = 0x81
PING = b"\x89\x00"
"""A ping without payload: one for all."""


def text_frame(payload: bytes) -> bytes:
    """One text message in one frame."""
    size = len(payload)
    if size < _SHORT:
        return bytes((_TEXT, size)) + payload
    if size < _MEDIUM:
        return struct.pack("!BBH", _TEXT, 126, size) + payload
    return struct.pack("!BBQ", _TEXT, 127, size) + payload
