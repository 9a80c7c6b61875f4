"""What has been received, is not yet confirmed, and would not be sent again: in order, and bounded in bytes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from towerbus.bridge.message import Message

EACH = 256
"""Bytes that a message takes beside its body."""


class Waiting:
    """The messages that wait.

    Args:
        limit: Bytes that may wait.

    Attributes:
        size: Bytes that wait.
        dropped: Messages for which there was no room.
        full: Whether there was none for one; who has emptied it takes that back.
    """

    def __init__(self, limit: int) -> None:
        self.size = self.dropped = 0
        self.full = False
        self._limit = limit
        self._messages: deque[Message] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Message) -> bool:
        """Put a message at the end; returns whether there was room."""
        size = len(message.body) + EACH
        if self.size + size > self._limit:
            self.dropped += 1
            self.full = True
            return False
        self.size += size
        self._messages.append(message)
        return True

    def first(self, count: int) -> Sequence[Message]:
        """The first of them, at the most so many; they go on waiting."""
        return [self._messages[at] for at in range(min(count, len(self._messages)))]

    def let_go(self, count: int) -> None:
        """Forget the first of them, which have been confirmed."""
        for _ in range(count):
            self.size -= len(self._messages.popleft().body) + EACH
