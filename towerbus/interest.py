"""What a session hears: single topics, and all topics of a group as far as an identity may see them. Values."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from towerbus.topics import Topic

Opens = Callable[[Topic], frozenset[str]]
"""Tells which badges let somebody see a topic: `AccessRules.opens`."""


class Sight(NamedTuple):
    """All topics of a group that one identity may see, now and in future.

    Identities that may see the same have equal sights, so that what is decided about one is decided about all.

    Attributes:
        group: The group.
        badges: What lets its holder see topics of the group: a topic is seen by one of the badges that open it.
    """

    group: str
    badges: frozenset[str]

    def sees(self, topic: Topic, opens: Opens) -> bool:
        """Whether a topic is part of it."""
        return topic.group == self.group and not self.badges.isdisjoint(opens(topic))


class Interest(NamedTuple):
    """What a session hears.

    Attributes:
        topics: Single ones.
        sights: Whole groups.
    """

    topics: frozenset[Topic] = frozenset()
    sights: frozenset[Sight] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.topics or self.sights)

    def without(self, other: Interest) -> Interest:
        """What stands here and not there."""
        return Interest(self.topics - other.topics, self.sights - other.sights)

    def together(self, other: Interest) -> Interest:
        """What stands here or there."""
        return Interest(self.topics | other.topics, self.sights | other.sights)

    def seen(self, topics: frozenset[Topic], opens: Opens) -> frozenset[Topic]:
        """Those of some topics that are part of its sights."""
        if not self.sights:
            return frozenset()
        return frozenset(topic for topic in topics if any(sight.sees(topic, opens) for sight in self.sights))

    @property
    def names(self) -> list[str]:
        """Their names on the wire, sorted: `jobs-status_changed`, and `jobs-*` for a whole group."""
        return sorted([topic.name for topic in self.topics] + [f"{sight.group}-*" for sight in self.sights])


NOTHING = Interest()


def handed_over(heard: Interest, wanted: Interest, opens: Opens) -> tuple[Interest, Interest, frozenset[Topic]]:
    """Divide what is wanted by whether it has been heard so far, under its own name or its group's.

    Returns:
        What goes on to be heard; what joins; and the topics of groups that join which go on.
    """
    joined_groups = Interest(sights=wanted.sights - heard.sights)
    on = Interest(
        (wanted.topics & heard.topics) | heard.seen(wanted.topics, opens) | joined_groups.seen(heard.topics, opens),
        wanted.sights & heard.sights,
    )
    joined = wanted.without(on)
    return on, joined, joined.seen(on.topics, opens)
