"""Which event goes to which topic, and so who must get what: known before the first is emitted. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence

from towerbus.topics import Topic

NEVER = 2**62
"""The number of an event that never comes."""
_REMEMBERED = 512
"""Pieces of a stream that are remembered for each set of topics."""


class Chunk:
    """A piece of a stream that was checked once: who stands at the same place and gets the same bytes got the same.

    Attributes:
        data: The bytes.
        next: The number from which on events are wanted behind it.
        numbers: The events in it.
        position: The last event's position, where the dialect has them.
    """

    __slots__ = ("data", "next", "numbers", "position")

    def __init__(self, data: bytes, next_: int, numbers: tuple[int, ...], position: str | None) -> None:
        self.data = data
        self.next = next_
        self.numbers = numbers
        self.position = position


class Schedule:
    """The events of a run, in the order in which they are emitted, numbered from 0.

    Args:
        topics: All topics.
        plan: For each event the index of its topic.
    """

    def __init__(self, topics: Sequence[Topic], plan: Sequence[int]) -> None:
        self.topics = tuple(topics)
        self.plan = array("i", plan)
        self.numbers = [array("i") for _ in topics]
        for number, topic in enumerate(plan):
            self.numbers[topic].append(number)
        self._feeds: dict[tuple[int, ...], Feed] = {}

    def feed(self, topics: Sequence[int]) -> Feed:
        """What a client gets that has subscribed to these; the same object for the same topics."""
        key = tuple(sorted(set(topics)))
        found = self._feeds.get(key)
        if found is None:
            found = self._feeds[key] = Feed(self, key)
        return found


class Feed:
    """The events of some topics, in order.

    Attributes:
        topics: Their indexes, ascending.
        chunks: Pieces of the stream that were checked, by the number that was wanted when they came.
    """

    def __init__(self, schedule: Schedule, topics: tuple[int, ...]) -> None:
        self.topics = topics
        self._plan = schedule.plan
        self._numbers = [schedule.numbers[topic] for topic in topics]
        self.chunks: dict[int, Chunk] = {}

    def __contains__(self, number: int) -> bool:
        return 0 <= number < len(self._plan) and self._plan[number] in self.topics

    def following(self, number: int) -> int:
        """The first event from a number on; `NEVER` where none is."""
        first = NEVER
        for numbers in self._numbers:
            at = bisect_left(numbers, number)
            if at < len(numbers) and numbers[at] < first:
                first = numbers[at]
        return first

    def preceding(self, number: int) -> int:
        """The last event before a number; -1 where none is."""
        last = -1
        for numbers in self._numbers:
            at = bisect_left(numbers, number)
            if at and numbers[at - 1] > last:
                last = numbers[at - 1]
        return last

    def between(self, first: int, end: int, most: int) -> list[int]:
        """The events from `first` to before `end`: so many at the most."""
        found: list[int] = []
        number = self.following(first)
        while number < end and len(found) < most:
            found.append(number)
            number = self.following(number + 1)
        return found

    def count(self, end: int) -> int:
        """How many events there are before a number."""
        return sum(bisect_left(numbers, end) for numbers in self._numbers)

    def remember(self, first: int, chunk: Chunk) -> None:
        """Remember a piece of the stream that was found to be right."""
        if len(self.chunks) >= _REMEMBERED:
            self.chunks.clear()
        self.chunks[first] = chunk
