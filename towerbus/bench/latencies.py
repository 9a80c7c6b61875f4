"""Times, counted in buckets that are never wider than a sixty-fourth of what they hold. Pure."""

from __future__ import annotations

from collections import Counter

_EXACT = 128
"""Microseconds below which each has a bucket of its own; above it there are half as many for each doubling."""


class Latencies:
    """Counts times; of different processes they can be added.

    Attributes:
        buckets: How often, by bucket.
    """

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()

    def note(self, seconds: float, times: int = 1) -> None:
        """Count a time."""
        self.buckets[bucket(seconds)] += times

    def percentile(self, percent: float) -> float | None:
        """The time, in milliseconds, within which so many stay: the upper bound of its bucket. None without any."""
        total = sum(self.buckets.values())
        wanted, seen = total * percent / 100, 0
        for each in sorted(self.buckets):
            seen += self.buckets[each]
            if seen >= wanted:
                return upper(each) / 1000
        return None

    def summary(self) -> dict[str, float]:
        """The percentiles that are reported, in milliseconds."""
        found = {f"p{name}": self.percentile(float(name)) for name in ("50", "90", "99", "99.9")}
        return {name: value for name, value in (found | {"max": self.percentile(100)}).items() if value is not None}


def bucket(seconds: float) -> int:
    """The bucket of a time."""
    micros = max(0, int(seconds * 1e6))
    shift = max(0, micros.bit_length() - _EXACT.bit_length() + 1)
    return (shift * _EXACT) + (micros >> shift)


def upper(number: int) -> int:
    """The microseconds that a bucket's times stay below, or are."""
    shift, place = divmod(number, _EXACT)
    return ((place + 1) << shift) - 1
