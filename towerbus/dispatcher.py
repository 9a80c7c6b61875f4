"""The dispatcher: topic index and fan-out, as a calculation. Who gets which bytes in this turn; no I/O.

The events of one reactor turn are gathered, each encoded once for every lane that has an audience for it. At the end of
the turn `cohorts` says which members receive the same bytes, so that a thousand subscription sets that share one topic
cost no more than a thousand equal ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any, Generic, TypeVar

from towerbus.interest import Interest, Opens
from towerbus.log.record import Record
from towerbus.topics import Topic

M = TypeVar("M", bound=Hashable)
K = TypeVar("K", Topic, str)
Audience = dict[M, None]

Encode = Callable[[Record, int], bytes]
"""Writes event number n of a record as the bytes that go to a client."""


def _opens_to_nobody(topic: Topic) -> frozenset[str]:  # noqa: ARG001
    """For lanes in which nobody hears whole groups."""
    return frozenset()


class Lane(Generic[M]):
    """The members that read one writing of the events: one dialect, framed one way.

    Args:
        encode: Writes an event for these members. Called once per event, and only when somebody listens.
        opens: Tells which badges let see a topic; without it nobody hears whole groups.

    Attributes:
        encode: As it was given.
    """

    def __init__(self, encode: Encode, opens: Opens = _opens_to_nobody) -> None:
        self.encode = encode
        self._opens = opens
        # In the order in which they joined, and walked so: what belongs to neighbours, here and in the kernel, was
        # mostly made together and lies together, so that a send costs less.
        self._audiences: dict[Topic, Audience[M]] = {}
        # Who hears whole groups, by group and badge: an event's audience is found by the badges that open its topic,
        # so that nobody is asked for each member, and topics of other groups cost nothing.
        self._holders: dict[str, dict[str, Audience[M]]] = {}
        self._turn: dict[Topic, list[tuple[int, bytes]]] = {}
        self._taken = 0

    def join(self, member: M, interest: Interest) -> None:
        """Let a member hear more from now on."""
        for topic in interest.topics:
            self._audiences.setdefault(topic, {})[member] = None
        for sight in interest.sights:
            holders = self._holders.setdefault(sight.group, {})
            for badge in sight.badges:
                holders.setdefault(badge, {})[member] = None

    def leave(self, member: M, interest: Interest) -> None:
        """Let a member hear less from now on."""
        for topic in interest.topics:
            _remove(self._audiences, topic, member)
        for sight in interest.sights:
            holders = self._holders[sight.group]
            for badge in sight.badges:
                _remove(holders, badge, member)
            if not holders:
                del self._holders[sight.group]

    @property
    def topics(self) -> int:
        """How many topics have an audience."""
        return len(self._audiences)

    def heard(self, record: Record, begin: int = 0) -> Sequence[int]:
        """The numbers of a record's events, from one on, that somebody may hear: the others need not be looked at."""
        audiences, holders = self._audiences, self._holders
        if not audiences and not holders:
            return ()
        topics = enumerate([event.topic for event in record.events[begin:]], begin)
        if not holders:
            return [number for number, topic in topics if topic in audiences]
        return [number for number, topic in topics if topic in audiences or topic.group in holders]

    def take(self, record: Record, place: int) -> int:
        """Gather one event for this turn; the bytes that it is written as, 0 when nobody listens."""
        topic = record.events[place].topic
        if topic not in self._audiences and not self._held(topic):
            return 0
        frame = self.encode(record, place)
        self._turn.setdefault(topic, []).append((self._taken, frame))
        self._taken += 1
        return len(frame)

    def cohorts(self) -> Iterator[tuple[Collection[M], bytes]]:
        """End the turn: who gets which bytes. Each member stands in one cohort at the most."""
        turn, self._turn, self._taken = self._turn, {}, 0
        audiences = {topic: self._audience(topic) for topic in turn}
        if len(turn) <= 1:
            for topic, frames in turn.items():
                yield audiences[topic], _joined([frames])
            return
        # Most of a platform's clients share one topic and differ in the small ones: the largest audience is not
        # walked, but cut down to those who hear nothing else in this turn.
        *small, largest = sorted(turn, key=lambda topic: len(audiences[topic]))
        heard: dict[M, tuple[Topic, ...]] = {}
        for topic in small:
            for member in audiences[topic]:
                heard[member] = (*heard.get(member, ()), topic)
        everyone = audiences[largest]
        others = dict.fromkeys(everyone)
        for member in heard:
            others.pop(member, None)
        yield others.keys(), _joined([turn[largest]])
        groups: dict[tuple[Topic, ...], list[M]] = {}
        for member, topics in heard.items():
            groups.setdefault((*topics, largest) if member in everyone else topics, []).append(member)
        for topics, members in groups.items():
            yield members, _joined([turn[topic] for topic in topics])

    def _held(self, topic: Topic) -> bool:
        """Whether a topic is heard by somebody who hears its whole group."""
        holders = self._holders.get(topic.group)
        return holders is not None and not holders.keys().isdisjoint(self._opens(topic))

    def _audience(self, topic: Topic) -> AbstractSet[M]:
        """Who hears a topic; its last member may have gone since the event was taken."""
        named = self._audiences.get(topic, _NOBODY)
        holders = self._holders.get(topic.group)
        if holders is None:
            return named.keys()
        audiences = [holders[badge] for badge in self._opens(topic) if badge in holders]
        if len(audiences) == 1 and not named:
            return audiences[0].keys()
        return dict.fromkeys(chain(named, *audiences)).keys()


_NOBODY: dict[Any, None] = {}


def _remove(audiences: dict[K, Audience[M]], key: K, member: M) -> None:
    audience = audiences[key]
    del audience[member]
    if not audience:
        del audiences[key]


def _joined(topics: list[list[tuple[int, bytes]]]) -> bytes:
    """The frames of some topics in the order in which they were taken, as one piece."""
    if len(topics) == 1:
        frames = topics[0]
        return frames[0][1] if len(frames) == 1 else b"".join([frame for _, frame in frames])
    return b"".join([frame for _, frame in sorted(pair for frames in topics for pair in frames)])
