"""What the reply to a subscription must say (docs/protocol.md). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from towerbus.bench.places import is_position, may_follow


def position(message: dict[str, Any]) -> str | None:
    """The position in a reply; None where there is none."""
    told = message.get("position")
    return told if isinstance(told, str) and is_position(told) else None


def wrong_lists(message: dict[str, Any], before: frozenset[str], wanted: frozenset[str]) -> Iterator[str]:
    """What is wrong with the topics that a reply lists, in words.

    Args:
        message: The reply.
        before: The topics that the client had, by their joined names.
        wanted: Those that it asked for.
    """
    expected = {"groups_current": wanted, "groups_joined": wanted - before, "groups_left": before - wanted}
    for key, value in expected.items():
        if sorted(value) != message.get(key):
            yield f"the reply's {key} is {message.get(key)}, not {sorted(value)}"


def wrong_places(message: dict[str, Any], before: str | None, *, since: bool) -> Iterator[str]:
    """What is wrong with what a reply in `towerbus.v1` says of the log, in words.

    Args:
        message: The reply.
        before: The client's position.
        since: Whether it came back with that.
    """
    place, recovered = position(message), message.get("recovered")
    if place is None:
        yield f"the reply's position is {message.get('position')!r}"
    elif since:
        if not isinstance(recovered, bool):
            yield f"the reply to since has {recovered!r} for recovered"
        elif recovered and place != before:
            yield f"the reply's position is {place}, and not {before}, with which it came back"
    elif "recovered" in message:
        yield "the reply to a message without since has recovered"
    elif before is not None and not may_follow(place, before):
        yield f"the reply's position {place} is before {before}"
