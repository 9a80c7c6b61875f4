"""permessage-deflate (RFC 7692): offers, messages compressed once for all, and messages inflated within a bound. Pure.

Neither side keeps anything from one message to the next ("no context takeover"). So the same bytes are right for every
client, and a connection on which nothing is being received holds no state of zlib's.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

from towerbus.errors import PeerError
from towerbus.wire.frames import text_frame

NAME = "permessage-deflate"
WINDOW_BITS = 12
"""log2 of the window in which repetitions are found, in bytes: what clients that save memory ask for. A larger one is
no better for events of some kilobytes."""
LEAST = 256
"""Bytes of a message that is compressed, at the least: what a smaller one would save is less than the headers of the
packet in which it goes."""
_LEVEL = 1
"""zlib's fastest: on events of up to 4 KiB the others are no better by more than 2 %."""
_MEMORY = 5

_TAIL = b"\x00\x00\xff\xff"
"""What ends each message, and is not sent (section 7.2.1)."""
_END = b"\x01\x00\x00\xff\xff"
"""An empty last block: behind a message that is whole the stream ends with it, behind any other it does not."""
_LARGEST_WINDOW = 15

Offers = Iterable[tuple[str, Mapping[str, Sequence[str | bool]]]]
"""Extensions with their parameters, each with all the values that it was given; True stands for none."""

_BITS = re.compile("[89]|1[0-5]")


class TooLargeError(PeerError):
    """A message holds more bytes than it may, inflated."""


class CorruptError(PeerError):
    """What a message holds is not deflated data."""


def answer(offers: Offers) -> str | None:
    """What goes into the header `Sec-WebSocket-Extensions` of the answer to a handshake.

    Args:
        offers: What the client offers, in its order: the first that can be kept to is taken (section 5.1).

    Returns:
        The extension with its parameters; None where none is taken.
    """
    for name, parameters in offers:
        if name == NAME and all(_is_good(key, values) for key, values in parameters.items()):
            taken = [NAME, "server_no_context_takeover", "client_no_context_takeover"]
            # Said to nobody who did not: there are clients that close for it.
            if "server_max_window_bits" in parameters:
                taken.append(f"server_max_window_bits={WINDOW_BITS}")
            return "; ".join(taken)
    return None


def _is_good(key: str, values: Sequence[str | bool]) -> bool:
    """Whether a parameter of an offer is one that can be kept to (section 7.1)."""
    if len(values) != 1:
        return False
    (value,) = values
    bits = int(value) if isinstance(value, str) and _BITS.fullmatch(value) else None
    match key:
        case "server_no_context_takeover" | "client_no_context_takeover":
            return value is True
        case "client_max_window_bits":
            # Only a hint: whatever window a client uses, the largest one inflates it.
            return value is True or bits is not None
        case "server_max_window_bits":
            return bits is not None and bits >= WINDOW_BITS
    return False


class Deflater:
    """Writes messages for all who have agreed to take them compressed.

    Attributes:
        taken: Bytes of the messages so far.
        made: Bytes that they came to, without the frames' heads.
    """

    def __init__(self) -> None:
        self.taken = self.made = 0

    def frame(self, message: bytes) -> bytes:
        """One text message in one frame, compressed where that makes it smaller."""
        size = len(message)
        self.taken += size
        if size >= LEAST:
            # A fresh one for each: a microsecond, and whatever befalls one message does not reach the next.
            stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, -WINDOW_BITS, _MEMORY)
            data = stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)
            if len(data) - len(_TAIL) < size:
                self.made += len(data) - len(_TAIL)
                return text_frame(data[: -len(_TAIL)], deflated=True)
        self.made += size
        return text_frame(message)


class Inflater:
    """Inflates one message, in pieces, to no more than it may hold: of a bomb not a byte more is made."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-_LARGEST_WINDOW)

    def more(self, data: bytes, room: int) -> bytes:
        """Inflate a piece.

        Args:
            data: The piece.
            room: Bytes that it may come to.

        Raises:
            TooLargeError: It would come to more.
            CorruptError: It can't be inflated.
        """
        found = self._inflated(data, max(room, 0) + 1)
        if len(found) > room:
            raise TooLargeError(f"inflates to more than the {max(room, 0)} bytes that are left")
        # Who ends the stream with the message puts a byte of padding behind it (section 7.2.3.4).
        if self._stream.unused_data not in {b"", b"\x00"}:
            raise CorruptError("goes on behind its last block")
        return found

    def end(self) -> None:
        """Take note that the message was all there.

        Raises:
            CorruptError: It was not: a part is missing.
        """
        if not self._stream.eof and (self._inflated(_TAIL + _END, 1) or not self._stream.eof):
            raise CorruptError("ends before its last block does")

    def _inflated(self, data: bytes, most: int) -> bytes:
        try:
            return self._stream.decompress(data, most)
        except zlib.error as error:
            raise CorruptError(str(error)) from error
