"""The time by which records grow old: it goes on over restarts, and no jump of the clock makes them all old. Pure."""

from __future__ import annotations

from collections.abc import Callable


class AgeClock:
    """Seconds that only move forward, about those of Unix.

    While the process runs they pass as a clock does that never jumps. Only how long it was away can be told by nothing
    but the wall clock; that may have jumped, so no more than half of the greatest age is believed of it. After a long
    time away, then, records are kept for up to half of that age longer than they should be.

    Args:
        seconds: Tells the time, in seconds that never jump (`time.monotonic`).
        wall: Tells the time of Unix, which may jump (`time.time`).
        max_age: Seconds after which a record is let go of.
    """

    def __init__(self, seconds: Callable[[], float], wall: Callable[[], float], max_age: float) -> None:
        self._seconds = seconds
        self.wall = wall
        self._max_age = max_age
        self._base = wall() - seconds()

    def __call__(self) -> float:
        """The time."""
        return self._base + self._seconds()

    def resume(self, last: float, wall: float) -> None:
        """Go on from the last time that is known.

        Args:
            last: What this clock said then.
            wall: What the wall clock said then.
        """
        away = min(max(self.wall() - wall, 0.0), self._max_age / 2)
        self._base = last + away - self._seconds()

    @property
    def oldest(self) -> float:
        """What was written before this time is too old."""
        return self() - self._max_age
