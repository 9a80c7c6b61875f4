"""The grammar of topics: `(group, type)`, written `group-type` on the wire and `group.type` as a routing key.

The rules are DESIGN's and asgiref's: a group matches `[A-Za-z0-9_]+`, a type `[A-Za-z0-9_.-]+`, and the joined name is
under 100 characters. A group never holds `-` or `.`, so both written forms split at the first one. Groups that begin
with `_` are internal: no client string forms them and no producer emits them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from towerbus.errors import PeerError

MAX_NAME = 99
"""Characters in `group-type`, at the most."""

_GROUP = re.compile(r"[A-Za-z0-9_]+")
_TYPE = re.compile(r"[A-Za-z0-9_.-]+")


class TopicError(PeerError):
    """A group or a type that no topic can have."""


class Topic(NamedTuple):
    """The address of an event. Make it with `topic()`, which checks it."""

    group: str
    type: str

    @property
    def name(self) -> str:
        """The name on the wire, such as `jobs-status_changed`."""
        return f"{self.group}-{self.type}"

    @property
    def routing_key(self) -> str:
        """The AMQP routing key, such as `jobs.status_changed`."""
        return f"{self.group}.{self.type}"

    @property
    def internal(self) -> bool:
        """True for the topics that no client and no producer can name."""
        return self.group.startswith("_")


@lru_cache(maxsize=65536)
def topic(group: str, type: str | int) -> Topic:  # noqa: A002 - the glossary's word
    """Check the two parts of a topic.

    Args:
        group: The group, such as `jobs`.
        type: The type, such as `status_changed`, or an id: 42 and "42" are the same type.

    Raises:
        TopicError: A part is empty, too long, or has a character that it may not have.
    """
    text = str(type)
    if not _GROUP.fullmatch(group):
        raise TopicError(f"group {_shown(group)} must be letters, digits and _ only, and not empty")
    if not _TYPE.fullmatch(text):
        raise TopicError(f"type {_shown(text)} must be letters, digits, '_', '.' and '-' only, and not empty")
    if len(group) + 1 + len(text) > MAX_NAME:
        raise TopicError(f"{_shown(group + '-' + text)} is longer than {MAX_NAME} characters")
    return Topic(group, text)


def checked_group(group: str) -> str:
    """Check a group by itself.

    Raises:
        TopicError: No topic can have it.
    """
    topic(group, "x")
    return group


def emittable(group: str, type: str | int) -> Topic:  # noqa: A002
    """Check a topic that a producer wants to emit to: like `topic`, and not internal."""
    checked = topic(group, type)
    if checked.internal:
        raise TopicError(f"group {_shown(group)} is internal: names that begin with _ can't be emitted to")
    return checked


def from_name(name: str) -> Topic:
    """Split Tower's joined name at its first `-`: `jobs-status_changed`, `job_events-42`."""
    group, dash, rest = name.partition("-")
    if not dash:
        raise TopicError(f"{_shown(name)} is not of the form group-type")
    return topic(group, rest)


def from_routing_key(key: str) -> Topic:
    """Split a routing key at its first `.`: `jobs.status_changed`, `job_events.42`."""
    group, dot, rest = key.partition(".")
    if not dot:
        raise TopicError(f"routing key {_shown(key)} is not of the form group.type")
    return topic(group, rest)


def _shown(text: str) -> str:
    """The text as an error may quote it: bounded, and on one line."""
    return repr(text if len(text) <= MAX_NAME else text[:60] + "...")
