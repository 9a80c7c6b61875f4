"""The dialect `tower`: what Ansible Tower's pages, scripts and test suites speak. docs/protocol.md has it in prose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from towerbus import topics
from towerbus.access import Identity
from towerbus.dialects.messages import AccessDeniedError, Denied, Farewell, MalformedError, Subscribe
from towerbus.errors import PeerError
from towerbus.log.record import Record
from towerbus.topics import Topic, TopicError

NAME = "tower"
"""The WebSocket subprotocol, for clients that name one."""

MAX_TOPICS = 1000
"""Topics in one groups message, at the most."""

_QUOTED = 80
_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.encode


class TowerDialect:
    """Reads and writes the messages of the dialect `tower`."""

    def read(self, frame: bytes) -> Subscribe:
        """Understand `{"groups": {group: [type, ...]}, "xrftoken": "..."}`; other keys are passed over."""
        message = _decoded(frame)
        if "groups" not in message:
            raise MalformedError('"groups" is missing: send {"groups": {"jobs": ["status_changed"]}}')
        groups = message["groups"]
        if not isinstance(groups, dict):
            raise MalformedError(f'"groups" must be an object of group: [types], not {_kind(groups)}')
        token = message.get("xrftoken")
        good: set[Topic] = set()
        bad: dict[Denied, None] = {}
        for group, type_ in _pairs(groups):
            try:
                good.add(topics.topic(group, type_))
            except TopicError:
                bad[Denied(group[:_QUOTED], type_[:_QUOTED])] = None
        return Subscribe(frozenset(good), tuple(bad), token if isinstance(token, str) else None)

    def accepted(self, identity: Identity) -> bytes:
        """`{"accept": true, "user": 7}`."""
        return _encode({"accept": True, "user": identity.user})

    def acknowledged(self, current: frozenset[Topic], left: frozenset[Topic], joined: frozenset[Topic]) -> bytes:
        """Three lists of joined names, sorted."""
        return _encode(
            {
                "groups_current": sorted(topic.name for topic in current),
                "groups_left": sorted(topic.name for topic in left),
                "groups_joined": sorted(topic.name for topic in joined),
            }
        )

    def denied(self, names: Sequence[Denied]) -> Sequence[bytes]:
        """One error for each name, in Tower's words."""
        return [
            _encode({"error": f"access denied to channel {name.group} for resource id {name.type}"}) for name in names
        ]

    def error(self, error: PeerError) -> bytes:
        """`{"error": "..."}`."""
        return _encode({"error": str(error)})

    def not_authenticated(self) -> Farewell:
        """`{"close": true}` and 1000: the code that stops Tower's pages from trying again for ever."""
        return Farewell(b'{"close":true}', 1000, "not authenticated")

    def try_later(self, reason: str) -> Farewell:
        """1013, with which Tower's pages come back."""
        return Farewell(None, 1013, reason)

    def slow(self) -> Farewell:
        """1013: what was missed is not sent again in this dialect."""
        return Farewell(None, 1013, "slow consumer: reads slower than its events come")

    def abuse(self, reason: str) -> Farewell:
        """1008."""
        return Farewell(None, 1008, reason)


def event(record: Record, place: int) -> bytes:
    """An event as this dialect's clients get it: the payload, byte for byte as it was emitted."""
    return record.events[place].payload


def _decoded(frame: bytes) -> dict[str, Any]:
    try:
        return _object.decode(frame)
    except msgspec.ValidationError as error:
        raise MalformedError(f'a message must be a JSON object, {{"groups": {{...}}}}: {error}') from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedError(f"not valid JSON: {error}") from error


def _pairs(groups: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The pairs of group and type in a `groups` object, each checked for its kind, bounded in number."""
    count = 0
    for group, types in groups.items():
        if not isinstance(types, list):
            # Tower's own answer, and like there the whole message is void.
            raise AccessDeniedError("access denied to channel")
        for type_ in types:
            if not isinstance(type_, str | int) or isinstance(type_, bool):
                raise MalformedError(
                    f"types of group {group[:_QUOTED]!r} must be strings or integers, not {_kind(type_)}"
                )
            count += 1
            if count > MAX_TOPICS:
                raise MalformedError(f"more than {MAX_TOPICS} topics in one message")
            yield group, str(type_)


def _kind(value: object) -> str:
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
