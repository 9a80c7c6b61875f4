"""One who catches up, and the line in which those wait whose position is older than the tail. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Protocol

from towerbus.catchup.encodings import Encodings
from towerbus.interest import Opens
from towerbus.log.tail import Entry
from towerbus.positions import Lost, Position
from towerbus.session_wire import Past
from towerbus.topics import Topic


class Returning(Protocol):
    """A client that comes back."""

    @property
    def waiting(self) -> int:
        """Bytes that wait for it because it reads slowly."""

    def write(self, data: bytes) -> None:
        """Send whole frames after everything that was sent to it before."""

    def recovered(self, position: Position, lost: Lost | None = None) -> None:
        """Hear from where on it is sent what was, and what of that is lost."""

    def missed(self, lost: Lost) -> None:
        """Hear that a part of what was is lost, between what was sent and what will be."""

    def caught_up(self) -> None:
        """Hear, in the turn in which that is so, that there is no more of what was."""

    def unavailable(self, reason: str) -> None:
        """Hear that the log can't be read now."""


class Member:
    """One who catches up.

    Args:
        who: The client.
        past: What it wants.
        encodings: How events are written for it.
        began: When it came, in seconds.

    Attributes:
        place: Up to where it has been sent everything; None until there is such a place.
        known: Whether it was told what became of its position.
        lost: What it has to be told next.
        history: What it gets before anything else: the last events that it asked for.
        queued: When it got in line, in seconds.
        hoping: Since when it waits for a log that can't be read, in seconds.
        gone: Whether it wants nothing any more.
    """

    __slots__ = (
        "began",
        "encodings",
        "gone",
        "history",
        "hoping",
        "known",
        "lost",
        "past",
        "place",
        "queued",
        "rank",
        "who",
    )

    _ranks = count()

    def __init__(self, who: Returning, past: Past, encodings: Encodings, began: float) -> None:
        self.who = who
        self.past = past
        self.encodings = encodings
        self.began = began
        self.place = past.since
        self.rank = next(self._ranks)
        self.known = self.gone = False
        self.lost: Lost | None = None
        self.history: deque[Entry] = deque()
        self.queued = began
        self.hoping: float | None = None

    @property
    def groups(self) -> list[str]:
        """The groups that it catches up with as a whole."""
        return [sight.group for sight in self.past.interest.sights]

    def wants(self, topic: Topic, opens: Opens) -> bool:
        """Whether it catches up with a topic."""
        topics, sights = self.past.interest
        if topic in topics:
            return True
        return topic not in self.past.without and any(sight.sees(topic, opens) for sight in sights)


class Line:
    """Those who wait for a reading of the log, by their places."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._order: dict[Member, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members))

    @property
    def longest(self) -> Member | None:
        """The one who has waited longest."""
        return next(iter(self._order), None)

    def add(self, member: Member) -> None:
        """Let a member wait; it has a place."""
        insort(self._members, member, key=_standing)
        self._order[member] = None

    def remove(self, member: Member) -> None:
        """Let a member wait no longer, if it does."""
        if member in self._order:
            del self._order[member]
            del self._members[bisect_left(self._members, _standing(member), key=_standing)]

    def first(self, since: Position | None = None) -> Member | None:
        """The one with the oldest place; of those at a place or behind it, where one is given."""
        at = 0 if since is None else bisect_left(self._members, since, key=_place)
        return self._members[at] if at < len(self._members) else None

    def take(self, since: Position, until: Position, most: int | None = None) -> list[Member]:
        """Take out those who wait at a place or behind it, and before another; so many at the most."""
        first, last = (bisect_left(self._members, place, key=_place) for place in (since, until))
        if most is not None:
            last = min(last, first + most)
        taken = self._members[first:last]
        del self._members[first:last]
        for member in taken:
            del self._order[member]
        return taken

    def clear(self) -> list[Member]:
        """Take all of them out."""
        taken, self._members = self._members, []
        self._order.clear()
        return taken


def _place(member: Member) -> Position:
    assert member.place is not None  # noqa: S101 - those in the line have one
    return member.place


def _standing(member: Member) -> tuple[Position, int]:
    return _place(member), member.rank
