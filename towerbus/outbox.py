"""The outbox: bounded bytes waiting for one session that does not read as fast as its events come. Pure."""

from __future__ import annotations

from collections import deque


class Outbox:
    """Whole frames in order, shared with the other sessions that wait for the same bytes.

    Args:
        limit: Bytes that may wait. One entry is always taken while nothing waits, whatever its size: an event may be
            larger than the limit.
    """

    __slots__ = ("_entries", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._entries: deque[bytes] = deque()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def offer(self, data: bytes) -> bool:
        """Put bytes behind what waits; False, and nothing is changed, when that would be over the limit."""
        if self._entries and self.size + len(data) > self.limit:
            return False
        self._entries.append(data)
        self.size += len(data)
        return True

    def take(self, amount: int) -> bytes:
        """Take whole entries from the front: as few as make `amount` bytes, and all when there are fewer."""
        taken, size = [], 0
        while self._entries and size < amount:
            taken.append(self._entries.popleft())
            size += len(taken[-1])
        self.size -= size
        return b"".join(taken) if len(taken) != 1 else taken[0]

    def clear(self) -> int:
        """Drop all that waits; the number of bytes that were dropped."""
        dropped = self.size
        self._entries.clear()
        self.size = 0
        return dropped
