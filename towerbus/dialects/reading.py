"""How every dialect reads a client's frame: JSON, and the topics in its `groups`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from towerbus import topics
from towerbus.dialects.messages import Code, Denied, MalformedError
from towerbus.topics import Topic, TopicError

MAX_TOPICS = 1000
"""Topics in one groups message, at the most."""
ALL = "*"
"""The type that stands for all of a group, where a dialect has it."""

_QUOTED = 80
_object = msgspec.json.Decoder(dict[str, Any])


class NotAListError(MalformedError):
    """What stands with a group in `groups` is not a list."""


class Wanted(NamedTuple):
    """What a `groups` object names.

    Attributes:
        topics: The well-formed topics.
        groups: The groups with the type `*`, where the dialect has that.
        impossible: Names that no topic can have.
    """

    topics: frozenset[Topic]
    groups: frozenset[str]
    impossible: tuple[Denied, ...]


def decoded(frame: bytes) -> dict[str, Any]:
    """Read a frame as a JSON object.

    Raises:
        MalformedError: It is none.
    """
    try:
        return _object.decode(frame)
    except msgspec.ValidationError as error:
        raise MalformedError(f'a message must be a JSON object, {{"groups": {{...}}}}: {error}') from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedError(f"not valid JSON: {error}") from error


def wanted(message: dict[str, Any], *, wildcards: bool) -> Wanted:
    """Read the `groups` of a message.

    Args:
        message: The message.
        wildcards: Whether the type `*` stands for all of a group, or is a name that no topic can have.

    Raises:
        MalformedError: They are missing or not written as they must be; NotAListError for one way of that.
    """
    if "groups" not in message:
        raise MalformedError('"groups" is missing: send {"groups": {"jobs": ["status_changed"]}}')
    groups = message["groups"]
    if not isinstance(groups, dict):
        raise MalformedError(f'"groups" must be an object of group: [types], not {kind(groups)}')
    good: set[Topic] = set()
    whole: set[str] = set()
    bad: dict[Denied, None] = {}
    for group, type_ in _pairs(groups):
        try:
            if wildcards and type_ == ALL:
                whole.add(topics.checked_group(group))
            else:
                good.add(topics.topic(group, type_))
        except TopicError:
            bad[Denied(group[:_QUOTED], type_[:_QUOTED])] = None
    return Wanted(frozenset(good), frozenset(whole), tuple(bad))


def kind(value: object) -> str:
    """What JSON calls a value."""
    match value:
        case bool():
            return "true or false"
        case None:
            return "null"
        case float() | int():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _pairs(groups: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The pairs of group and type in a `groups` object, each checked for its kind, bounded in number."""
    count = 0
    for group, types in groups.items():
        if not isinstance(types, list):
            raise NotAListError(f"types of group {group[:_QUOTED]!r} must be an array, not {kind(types)}")
        for type_ in types:
            if not isinstance(type_, str | int) or isinstance(type_, bool):
                raise MalformedError(
                    f"types of group {group[:_QUOTED]!r} must be strings or integers, not {kind(type_)}"
                )
            count += 1
            if count > MAX_TOPICS:
                raise MalformedError(f"more than {MAX_TOPICS} topics in one message", Code.TOO_MANY)
            yield group, str(type_)
