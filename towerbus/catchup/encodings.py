"""Encodings that are kept for a while: clients that have missed the same events share the bytes. Pure."""

from __future__ import annotations

from towerbus.dispatcher import Encode
from towerbus.log.record import Record

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of encodings that are kept, at the most: the newest."""


class Encodings:
    """Writes events as a lane does, each once while it is remembered.

    Args:
        encode: Writes an event.
        max_bytes: Bytes that are remembered.
    """

    def __init__(self, encode: Encode, max_bytes: int = MAX_BYTES) -> None:
        self._encode = encode
        self._max_bytes = max_bytes
        self._size = 0
        self._known: dict[tuple[str, int, int, int], bytes] = {}

    def __call__(self, record: Record, place: int) -> bytes:
        """Event number n of a record, as it goes to a client."""
        key = (record.epoch, record.term, record.offset, place)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._encode(record, place)
            self._size += len(known)
            while self._size > self._max_bytes:
                self._size -= len(self._known.pop(next(iter(self._known))))
        return known
