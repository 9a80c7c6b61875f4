"""WebSocket frames as a client needs them (RFC 6455 section 5): its own masked, the server's read. Pure."""

from __future__ import annotations

import os
import struct
import zlib
from typing import NamedTuple

from towerbus.errors import PeerError

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes in a server's message, at the most: a length beyond that is a stream that has lost its place."""

_SHORT, _MEDIUM, _LONG = 126, 127, 65536
_FINAL, _RESERVED, _MASKED, _DEFLATED = 0x80, 0x70, 0x80, 0x40
_CONTROL = 8
_TAIL = b"\x00\x00\xff\xff" + b"\x01\x00\x00\xff\xff"
"""What is cut off every message, and an empty last block: the stream ends with it if the message was whole."""


class FrameError(PeerError):
    """What a server must never send."""


class Frame(NamedTuple):
    """A frame of the server's.

    Attributes:
        opcode: Text, close, ping or pong.
        payload: What it holds.
        end: Where the next one begins.
    """

    opcode: int
    payload: bytes
    end: int


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame, with a fresh mask of random bytes (sections 5.3 and 10.3)."""
    size = len(payload)
    if size < _SHORT:
        head = bytes((_FINAL | opcode, _MASKED | size))
    elif size < _LONG:
        head = struct.pack("!BBH", _FINAL | opcode, _MASKED | _SHORT, size)
    else:
        head = struct.pack("!BBQ", _FINAL | opcode, _MASKED | _MEDIUM, size)
    mask = os.urandom(4)
    stream = (mask * (size // 4 + 1))[:size]
    mixed = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
    return head + mask + mixed


def frame(data: bytes, at: int, *, compression: bool = False) -> Frame | None:
    """Read the frame that begins at a place; None where it is not all there.

    Args:
        data: What the server has sent.
        at: The place.
        compression: Whether permessage-deflate was agreed on, without context takeover; a payload is inflated then.

    Raises:
        FrameError: No frame of a server's begins there that towerbus sends: they are whole, without reserved bits but
            that of compression, and without a mask.
    """
    if len(data) - at < 2:  # noqa: PLR2004 - the two bytes that every frame has
        return None
    first, size = data[at], data[at + 1]
    start = at + 2
    opcode = first & 15
    deflated = compression and opcode == TEXT and bool(first & _DEFLATED)
    if (
        first & (_FINAL | _RESERVED) != _FINAL | (_DEFLATED * deflated)
        or size & _MASKED
        or opcode not in {TEXT, CLOSE, PING, PONG}
    ):
        raise FrameError(f"the stream is no longer one of frames: {data[at : at + 16]!r}")
    if size >= _SHORT:
        width = 2 if size == _SHORT else 8
        if len(data) - start < width:
            return None
        size = int.from_bytes(data[start : start + width], "big")
        start += width
        if size > MAX_MESSAGE or opcode >= _CONTROL:
            raise FrameError(f"a frame of {size} bytes: the stream has lost its place")
    if len(data) - start < size:
        return None
    payload = data[start : start + size]
    return Frame(opcode, inflated(payload) if deflated else payload, start + size)


def inflated(payload: bytes) -> bytes:
    """A compressed message (RFC 7692 section 7.2.2).

    Raises:
        FrameError: It is none.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        message = stream.decompress(payload + _TAIL, MAX_MESSAGE)
    except zlib.error as error:
        raise FrameError(f"a message that can't be inflated: {error}") from error
    if not stream.eof or stream.unused_data:
        raise FrameError("a message that can't be inflated: it has no end, or goes on behind it")
    return message


def close_code(payload: bytes) -> int:
    """The code in a close frame; 1005 where there is none (section 7.1.5)."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005  # noqa: PLR2004
