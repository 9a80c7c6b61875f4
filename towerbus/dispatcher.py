"""The dispatcher: topic index and fan-out, as a calculation. Who gets which bytes in this turn; no I/O.

The events of one reactor turn are gathered, each encoded once for every lane that has an audience for it. At the end of
the turn `cohorts` says which members receive the same bytes, so that a thousand subscription sets that share one topic
cost no more than a thousand equal ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

from towerbus.log.record import Record
from towerbus.topics import Topic

M = TypeVar("M", bound=Hashable)

Encode = Callable[[Record, int], bytes]
"""Writes event number n of a record as the bytes that go to a client."""


class Lane(Generic[M]):
    """The members that read one writing of the events: one dialect, framed one way.

    Args:
        encode: Writes an event for these members. Called once per event, and only when somebody listens.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._audiences: dict[Topic, set[M]] = {}
        self._turn: dict[Topic, list[tuple[int, bytes]]] = {}
        self._taken = 0

    def join(self, member: M, topics: Iterable[Topic]) -> None:
        """Let a member hear topics from now on."""
        for topic in topics:
            self._audiences.setdefault(topic, set()).add(member)

    def leave(self, member: M, topics: Iterable[Topic]) -> None:
        """Let a member hear topics no longer."""
        for topic in topics:
            audience = self._audiences[topic]
            audience.remove(member)
            if not audience:
                del self._audiences[topic]

    @property
    def topics(self) -> int:
        """How many topics have an audience."""
        return len(self._audiences)

    def take(self, record: Record, place: int) -> int:
        """Gather one event for this turn; the bytes that it is written as, 0 when nobody listens."""
        topic = record.events[place].topic
        if topic not in self._audiences:
            return 0
        frame = self._encode(record, place)
        self._turn.setdefault(topic, []).append((self._taken, frame))
        self._taken += 1
        return len(frame)

    def cohorts(self) -> Iterator[tuple[Collection[M], bytes]]:
        """End the turn: who gets which bytes. Each member stands in one cohort at the most."""
        turn, self._turn, self._taken = self._turn, {}, 0
        if len(turn) <= 1:
            for topic, frames in turn.items():
                yield self._audience(topic), _joined([frames])
            return
        # Most of a platform's clients share one topic and differ in the small ones: the largest audience is not
        # walked, but cut down to those who hear nothing else in this turn.
        *small, largest = sorted(turn, key=lambda topic: len(self._audience(topic)))
        heard: dict[M, tuple[Topic, ...]] = {}
        for topic in small:
            for member in self._audience(topic):
                heard[member] = (*heard.get(member, ()), topic)
        everyone = self._audience(largest)
        yield everyone - heard.keys(), _joined([turn[largest]])
        groups: dict[tuple[Topic, ...], list[M]] = {}
        for member, topics in heard.items():
            groups.setdefault((*topics, largest) if member in everyone else topics, []).append(member)
        for topics, members in groups.items():
            yield members, _joined([turn[topic] for topic in topics])

    def _audience(self, topic: Topic) -> AbstractSet[M]:
        """Who hears a topic; its last member may have gone since the event was taken."""
        return self._audiences.get(topic, frozenset())


def _joined(topics: list[list[tuple[int, bytes]]]) -> bytes:
    """The frames of some topics in the order in which they were taken, as one piece."""
    if len(topics) == 1:
        frames = topics[0]
        return frames[0][1] if len(frames) == 1 else b"".join([frame for _, frame in frames])
    return b"".join([frame for _, frame in sorted(pair for frames in topics for pair in frames)])
