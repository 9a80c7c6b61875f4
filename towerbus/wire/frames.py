"""WebSocket frames as a server writes them (RFC 6455 section 5.2): whole, unmasked. Pure."""

from __future__ import annotations

import struct

_SHORT = 126
_MEDIUM = 65536
_TEXT, _DEFLATED = 0x81, 0xC1
PING = b"\x89\x00"
"""A ping without payload: one for all."""


def text_frame(payload: bytes, *, deflated: bool = False) -> bytes:
    """One text message in one frame; with RSV1 where the payload is a compressed one (RFC 7692 section 6)."""
    kind, size = _DEFLATED if deflated else _TEXT, len(payload)
    if size < _SHORT:
        return bytes((kind, size)) + payload
    if size < _MEDIUM:
        return struct.pack("!BBH", kind, 126, size) + payload
    return struct.pack("!BBQ", kind, 127, size) + payload
