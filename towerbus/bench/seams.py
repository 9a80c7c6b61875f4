"""What a client must get where it replaces its set and is told at which place of the log. Pure.

A set holds from the position in its reply up to the position in the next one: the client gets all events of it in
between, and no others. The position of an event that it has not got is known from the other clients, a little later: so
what came under a set is looked at when the next but one holds, or at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from towerbus.bench.places import Places, behind
from towerbus.bench.schedule import NEVER, Feed


@dataclass(slots=True)
class _Held:
    """A set, while it holds.

    Attributes:
        feed: Its events.
        after: The position behind which it holds; None where it is known to begin with the event `lowest`.
        lowest: What the client wanted next when it began.
        first: The first event of it that came; None before.
        until: The position up to which it holds; None while it does.
        next: What the client wanted next when it ended.
    """

    feed: Feed
    after: str | None
    lowest: int
    first: int | None = None
    until: str | None = None
    next: int = 0


class Seams:
    """One client's sets.

    Args:
        places: Where events stand.
        feed: The set that holds now.
        number: What the client wants next of it.
    """

    __slots__ = ("_last", "_now", "_places")

    def __init__(self, places: Places, feed: Feed, number: int) -> None:
        self._places = places
        self._now = _Held(feed, None, number, number)
        self._last: _Held | None = None

    def came(self, number: int) -> None:
        """An event has come under the set that holds; of interest is the first."""
        if self._now.first is None or number < self._now.first:
            self._now.first = number

    def may_yet_come(self, number: int) -> bool:
        """Whether an event may be one of the set that holds, from before the first that came."""
        now = self._now
        return now.first is not None and now.lowest <= number < now.first and number in now.feed

    def replaced(self, feed: Feed, position: str, number: int) -> set[int]:
        """The set is replaced.

        Args:
            feed: The new one.
            position: Where in the log, as the reply says.
            number: What the client wants next.

        Returns:
            What did not come under the set before the one that ends here.
        """
        found = self._missing(self._last)
        self._now.until, self._now.next = position, number
        self._last, self._now = self._now, _Held(feed, position, number)
        return found

    def ended(self, number: int) -> set[int]:
        """Nothing more comes.

        Args:
            number: What the client wants next.

        Returns:
            What did not come under the last two sets; of the one that holds what should have come before its first
            event.
        """
        self._now.next = number
        return self._missing(self._last) | self._missing(self._now)

    def _missing(self, held: _Held | None) -> set[int]:
        if held is None:
            return set()
        first = NEVER if held.first is None else held.first
        found = self._between(held, held.lowest, first)
        if held.first is not None and held.until is not None:
            found |= self._between(held, max(held.next, held.first), NEVER)
        return found

    def _between(self, held: _Held, start: int, end: int) -> set[int]:
        """Events of a set, from one number to before another, whose positions are known and are within it."""
        found = set()
        number = held.feed.following(start)
        while number < end and number <= self._places.newest:
            position = self._places.position(number)
            if position is not None:
                if held.until is not None and behind(position, held.until):
                    break
                if held.after is None or behind(position, held.after):
                    found.add(number)
            number = held.feed.following(number + 1)
        return found
