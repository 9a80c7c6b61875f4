"""The tail: the newest records of the log, in memory, bounded, with an index by topic. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from math import inf
from operator import itemgetter
from typing import NamedTuple, TypeVar

from towerbus.errors import PositionLostError
from towerbus.log.record import Record
from towerbus.positions import Lost, Position
from towerbus.topics import Topic

OVERHEAD = 200
"""Bytes that an event is counted as, beside its payload."""


K = TypeVar("K", Topic, str)
T = TypeVar("T")


class Entry(NamedTuple):
    """One event in the tail: `record.events[number]`."""

    offset: int
    number: int
    record: Record

    @property
    def topic(self) -> Topic:
        """Its address."""
        return self.record.events[self.number].topic

    @property
    def position(self) -> Position:
        """Its position."""
        return self.record.position(self.number)


_place = itemgetter(0, 1)


class Piece(NamedTuple):
    """Some of what somebody missed.

    Attributes:
        entries: The events, in order.
        until: The place up to which they are all; the end of the tail when nothing else was missed.
    """

    entries: list[Entry]
    until: Position


class Tail:
    """The newest records.

    Reading along must cost next to nothing, so the index is made when somebody asks for it.

    Args:
        begin: Where it begins: the position of the last event before it.
        max_bytes: Bytes that are kept, at the most; the newest record is kept whatever its size.
        max_age: Seconds that a record is kept, at the most.
        seconds: Tells the time, in seconds that never jump; not asked where there is no `max_age`.
    """

    def __init__(
        self,
        begin: Position,
        *,
        max_bytes: int,
        max_age: float = inf,
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.begin = begin
        """What stands behind this position is here."""
        self.end = begin
        """The position of the newest event; of the last record, where that holds none."""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._seconds = seconds
        self._size = 0
        self._kept: deque[tuple[Record, int, float]] = deque()
        self._records: dict[int, Record] = {}
        self._indexed = 0
        self._topics: dict[Topic, deque[Entry]] = {}
        self._groups: dict[str, deque[Entry]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that are kept, as they are counted."""
        return self._size

    def append(self, record: Record, at: float | None = None, *, size: int | None = None) -> None:
        """Take the next record of the log.

        Args:
            record: The record.
            at: When it was written, by the tail's own time; now, where it is not given.
            size: Bytes of its events, where they are known: to count them is a tenth of what reading along costs.
        """
        if size is None:
            size = sum([len(event.payload) for event in record.events])
        size += OVERHEAD * (len(record.events) + 1)
        self._kept.append((record, size, self._seconds() if at is None else at))
        self._records[record.offset] = record
        self._size += size
        self.end = record.end
        self.let_go()

    def restart(self, begin: Position) -> None:
        """Forget all, and begin anew at another place, or in another log."""
        self.begin = self.end = begin
        self._size = self._indexed = 0
        for kept in (self._kept, self._records, self._topics, self._groups):
            kept.clear()

    def let_go(self) -> None:
        """Let go of what is too old or too much."""
        oldest = self._seconds() - self._max_age
        while self._kept and (self._kept[0][2] < oldest or (self._size > self._max_bytes and len(self._kept) > 1)):
            record, size, _ = self._kept.popleft()
            self._size -= size
            self.begin = record.end
            del self._records[record.offset]
            if self._indexed:
                self._indexed -= 1
                self._unindex(record)

    def covers(self, position: Position) -> bool:
        """Whether all that stands behind a position is here; False where it is older than the tail.

        Raises:
            PositionLostError: The log does not have the position: it is of another log or another copy of it, or past
                its end.
        """
        self.let_go()
        if position.epoch != self.begin.epoch:
            raise PositionLostError(Lost(position, self.begin, "the position is of another log: it was made anew"))
        if position > self.end:
            raise PositionLostError(Lost(position, self.end, "the position is past the end of the log"))
        if position < self.begin:
            return False
        record = self._records.get(position.offset)
        if position == self.begin or (record is not None and record.begin <= position <= record.end):
            return True
        raise PositionLostError(Lost(position, self.end, "the position is not in the log: it was restored from a copy"))

    def records(self, after: Position) -> Sequence[Record]:
        """The records from the one that holds a position on, the newest last; the position must be covered."""
        newest: list[Record] = []
        for record, _, _ in reversed(self._kept):
            if record.end <= after:
                break
            newest.append(record)
        newest.reverse()
        return newest

    def missed(
        self,
        after: Position,
        topics: frozenset[Topic],
        groups: Iterable[str] = (),
        allowed: Callable[[Topic], bool] = lambda _: True,
        most: int | None = None,
    ) -> Piece:
        """The next events behind a position that somebody wants, in order, each once; the position must be covered.

        Args:
            after: The position.
            topics: What is wanted.
            groups: Groups of which every topic is wanted that `allowed` lets pass.
            allowed: Asked about the topics of `groups`.
            most: How many events are looked at; all, where it is not given.
        """
        self.index()
        place = (after.offset, after.place - 1)
        sources = [_behind(self._topics[topic], place) for topic in topics if topic in self._topics]
        sources += [_behind(self._groups[group], place) for group in groups if group in self._groups]
        found: list[Entry] = []
        last: Entry | None = None
        for looked, entry in enumerate(sources[0] if len(sources) == 1 else merge(*sources, key=_place)):
            if looked == most:
                return Piece(found, after if last is None else last.position)
            if entry is not last and (entry.topic in topics or allowed(entry.topic)):
                found.append(entry)
            last = entry
        return Piece(found, self.end)

    def last(
        self,
        topics: Iterable[Topic],
        count: int,
        groups: Iterable[str] = (),
        allowed: Callable[[Topic], bool] = lambda _: True,
        most: int | None = None,
    ) -> list[Entry]:
        """The last `count` events of each topic, all together in order; as many as the tail has.

        Args:
            topics: What is wanted.
            count: How many of each.
            groups: Groups of which every topic is wanted that `allowed` lets pass.
            allowed: Asked about the topics of `groups`.
            most: How many events of each group are looked at, the newest; all, where it is not given.
        """
        self.index()
        found = {
            _place(entry): entry for topic in topics for entry in islice(reversed(self._topics.get(topic, ())), count)
        }
        for group in groups:
            counted: Counter[Topic] = Counter()
            for entry in islice(reversed(self._groups.get(group, ())), most):
                topic = entry.topic
                counted[topic] += 1
                if counted[topic] <= count and allowed(topic):
                    found[_place(entry)] = entry
        return [found[place] for place in sorted(found)]

    def index(self, most: int | None = None) -> bool:
        """Bring the index up to date with what has come; whoever asks for events has it done.

        Args:
            most: How many events, or one record's more, are indexed at a time; all, where it is not given.

        Returns:
            Whether it is up to date now.
        """
        self.let_go()
        done = 0
        for record, _, _ in _from(self._kept, self._indexed):
            if most is not None and done >= most:
                return False
            for number, event in enumerate(record.events):
                entry = Entry(record.offset, number, record)
                self._topics.setdefault(event.topic, deque()).append(entry)
                self._groups.setdefault(event.topic.group, deque()).append(entry)
            self._indexed += 1
            done += len(record.events)
        return True

    def _unindex(self, record: Record) -> None:
        for event in record.events:
            _drop_first(self._topics, event.topic)
            _drop_first(self._groups, event.topic.group)


def _behind(entries: deque[Entry], place: tuple[int, int]) -> Iterator[Entry]:
    """The entries behind a place, in order."""
    if _place(entries[-1]) <= place:
        return iter(())
    return _from(entries, bisect_right(entries, place, key=_place))


def _from(items: deque[T], first: int) -> Iterator[T]:
    """The items from a number on, by the shorter way."""
    count = len(items) - first
    if count < first:
        return reversed(list(islice(reversed(items), count)))
    return islice(items, first, None)


def _drop_first(index: dict[K, deque[Entry]], key: K) -> None:
    entries = index[key]
    entries.popleft()
    if not entries:
        del index[key]
