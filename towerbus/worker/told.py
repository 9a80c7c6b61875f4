"""Log lines about what may come in floods: the first at once, then one a second at the most, with the count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

EVERY = 1.0
"""Seconds between two lines, at the least."""


class Told:
    """Tells of one kind of thing.

    Args:
        clock: Calls later.
        tell: Writes a line: how many there were since the last, and what the newest was.
    """

    def __init__(self, clock: Any, tell: Callable[[int, str], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._count = 0
        self._newest = ""
        self._timer: Any = None

    def add(self, what: str) -> None:
        """There was another one."""
        self._count += 1
        self._newest = what
        if self._timer is None:
            self._due()

    def close(self) -> None:
        """Tell what is not told yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write()

    def _due(self) -> None:
        self._timer = self._clock.callLater(EVERY, self._due) if self._count else None
        self._write()

    def _write(self) -> None:
        count, self._count = self._count, 0
        if count:
            self._tell(count, self._newest)
