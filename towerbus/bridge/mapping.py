"""Mappings: what becomes of a foreign message: events, nothing (it is filtered out), or an error that names why. Pure.

Without a table `[bridge.mapping]`, group and type are what the source says, or the two parts of the routing key, and
the payload is the body, byte for byte. The payload is written anew only where it is changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from towerbus import topics
from towerbus.bridge.message import Message
from towerbus.bridge.runner import RunnerEvent, runner_event
from towerbus.bridge.template import MissingError, Path, Template
from towerbus.converting import refuse
from towerbus.errors import PeerError
from towerbus.event import MAX_ID, MAX_PAYLOAD, Event, EventError, event

_ID = re.compile(r"[!-~]+")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_CUT = "\n... cut: too large to broadcast"


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"in_": "in", "not_in": "not_in"}):
    """A filter: messages that do not meet it are passed over.

    Attributes:
        value: A template; what the message lacks counts as empty.
        in_: The texts of which it must be one; `in` in the file.
        not_in: The texts of which it must be none.
        matches: A regular expression that the whole of it must match.
    """

    value: str
    in_: tuple[str, ...] | None = None
    not_in: tuple[str, ...] | None = None
    matches: str | None = None

    def __post_init__(self) -> None:
        Template(self.value)
        if self.in_ is None and self.not_in is None and self.matches is None:
            raise ValueError("a filter needs in, not_in or matches")
        if self.matches is not None:
            _pattern(self.matches)


class MappingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[bridge.mapping]`.

    Attributes:
        shape: `plain`: the payload is the body. `runner`: the body is an event of ansible-runner, and the payload what
            Tower makes of it; group, type and id follow from it where they are not given.
        group: A template for the group.
        type: A template for the type.
        id: A template for the event's id; the message's own where it is not given.
        payload: The path to the part of the body that becomes the payload, `payload.data`.
        select: The keys of the payload that are kept; all, where it is empty.
        rename: The payload's keys that get other names: old to new. It happens after `select`.
        filter: Conditions; a message has to meet all.
    """

    shape: Literal["plain", "runner"] = "plain"
    group: str = ""
    type: str = ""
    id: str = ""
    payload: str = ""
    select: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    filter: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        refuse(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        for name in ("group", "type", "id"):
            if text := getattr(self, name):
                yield from _of_template(name, text)
        if self.payload and not _in_body(self.payload):
            yield f"payload: got {self.payload!r}, wanted a path in the body, such as payload.data"


class Mapping:
    """What `MappingOptions` do.

    Args:
        options: They.
        max_payload: Bytes in a payload, at the most.
    """

    def __init__(self, options: MappingOptions, max_payload: int = MAX_PAYLOAD) -> None:
        self._options = options
        self._max_payload = max_payload
        self._group, self._type, self._id = (
            Template(text) if text else None for text in (options.group, options.type, options.id)
        )
        self._path = Path(options.payload) if options.payload else None
        self._filters = [_Filter(condition) for condition in options.filter]
        self._plain = options.shape == "plain"
        self._changes = bool(options.payload or options.select or options.rename or not self._plain)
        templates = [each for each in (self._group, self._type, self._id) if each is not None]
        self._reads = self._changes or any(
            each.asks("payload") for each in [*templates, *(each.template for each in self._filters)]
        )

    def map(self, message: Message) -> list[Event]:
        """Make events of a message.

        Returns:
            One event, or none where it is filtered out.

        Raises:
            PeerError: It can't be mapped; the text says why.
        """
        payload = _understood(message.body) if self._reads else None
        if not all(each.passes(message, payload) for each in self._filters):
            return []
        if self._plain:
            return [self._plain_event(message, payload)]
        return [self._runner_event(message, payload)]

    def _plain_event(self, message: Message, payload: Any) -> Event:
        group, type_ = self._topic(message, payload)
        id_ = message.id if self._id is None else self._id.fill(message, payload)
        body = self._changed(message, payload) if self._changes else message.body
        return self._event(message, group, type_, body, id_)

    def _topic(self, message: Message, payload: Any) -> tuple[str, str]:
        group = message.group if self._group is None else self._group.fill(message, payload)
        type_ = message.type if self._type is None else self._type.fill(message, payload)
        if group and type_:
            return group, type_
        if not message.routing_key:
            what = "group" if not group else "type"
            raise MissingError(f"nothing says its {what}: give {what} in [bridge.mapping]")
        topic = topics.from_routing_key(message.routing_key)
        return group or topic.group, type_ or topic.type

    def _runner_event(self, message: Message, payload: Any) -> Event:
        raw = payload if self._path is None else self._path.find(message, payload)
        if not isinstance(raw, dict):
            raise EventError("it is no event of ansible-runner's: it is not a JSON object")
        job = None if self._type is None else self._type.fill(message, payload)
        made = runner_event(raw, job)
        group = made.group if self._group is None or made.group == "jobs" else self._group.fill(message, payload)
        # Not the message's own id: what sends the event again may give it another one.
        id_ = made.id if self._id is None else self._id.fill(message, payload)
        return self._event(message, group, made.type, self._fitting(made), id_)

    def _fitting(self, made: RunnerEvent) -> bytes:
        """A payload of Tower's that is not too large: one that is goes without its result, or most of its output."""
        body = _encode(self._keys(made.payload))
        if len(body) <= self._max_payload or made.group == "jobs":
            return body
        data = made.payload["event_data"]
        body = _encode(self._keys(made.payload | {"event_data": data | {"res": {}}}))
        if len(body) <= self._max_payload:
            return body
        # A character is at most 6 bytes of JSON, so that the output takes a quarter of the limit.
        names = {key: made.payload[key][:256] for key in ("play", "role", "task")}
        stdout = made.payload["stdout"][: self._max_payload // 24] + _CUT
        return _encode(self._keys(made.payload | names | {"event_data": {}, "stdout": stdout}))

    def _changed(self, message: Message, payload: Any) -> bytes:
        found = payload if self._path is None else self._path.find(message, payload)
        if not isinstance(found, dict):
            raise EventError(f"{self._options.payload or 'the body'} is not a JSON object")
        return _encode(self._keys(found))

    def _keys(self, payload: dict[str, Any]) -> dict[str, Any]:
        select, rename = self._options.select, self._options.rename
        if select:
            payload = {key: payload[key] for key in select if key in payload}
        if rename:
            payload = {rename.get(key, key): value for key, value in payload.items()}
        return payload

    def _event(self, message: Message, group: str, type_: str, body: bytes, id_: str | None) -> Event:
        good = stable(id_) if id_ is not None else None
        return event(group, type_, body, id=good, at=message.time, limit=self._max_payload)


class _Filter:
    def __init__(self, condition: Condition) -> None:
        self.template = Template(condition.value)
        self._in = None if condition.in_ is None else frozenset(condition.in_)
        self._not_in = frozenset(condition.not_in or ())
        self._matches = None if condition.matches is None else _pattern(condition.matches)

    def passes(self, message: Message, payload: Any) -> bool:
        try:
            value = self.template.fill(message, payload)
        except MissingError:
            value = ""
        if (self._in is not None and value not in self._in) or value in self._not_in:
            return False
        return self._matches is None or self._matches.fullmatch(value) is not None


def stable(id_: str) -> str:
    """An event's id made of a foreign one: the same, where it may be one, else its SHA-256."""
    if id_ and len(id_) <= MAX_ID and _ID.fullmatch(id_):
        return id_
    return hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()


def _understood(body: bytes) -> Any:
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"the body is not JSON: {error}") from error


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"matches: got {text!r}, wanted a regular expression ({error})") from None


def _in_body(path: str) -> bool:
    try:
        return Path(path).parts[0] == "payload"
    except ValueError:
        return False


def _of_template(name: str, text: str) -> Iterator[str]:
    """What is wrong with a template, or with the part of a topic that it always comes to."""
    try:
        if Template(text).constant and name != "id":
            topics.emittable(text if name == "group" else "x", text if name == "type" else "x")
    except topics.TopicError as error:
        yield f"{name}: {error}"
    except ValueError as error:
        yield f"{name}: got {text!r}: {error}"


__all__ = ["Condition", "Mapping", "MappingOptions", "PeerError", "stable"]
