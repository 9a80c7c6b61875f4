"""What producers post: one event, a JSON array of events, or one event a line (NDJSON). Pure."""

from __future__ import annotations

import re
from itertools import count, islice

import msgspec

from towerbus import topics
from towerbus.errors import PeerError
from towerbus.event import MAX_PAYLOAD, Event, EventError, event

LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
"""Media types of a body with one event a line."""


MAX_EVENTS = 10_000
"""Events in a body, at the most, unless configured otherwise."""
_LINE = re.compile(rb"\S.*")
_NEWLINE = b"\n"


class Given(msgspec.Struct, gc=False):
    """An event as a producer writes it."""

    group: str
    payload: msgspec.Raw
    type: str | int | None = None
    id: str | None = None


class TooLargeError(EventError):
    """One payload is over the limit, or there are too many events."""


_one = msgspec.json.Decoder(Given)
_several = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder(msgspec.Raw)


def read(
    body: bytes, max_payload: int = MAX_PAYLOAD, *, lines: bool = False, max_events: int = MAX_EVENTS
) -> list[Event]:
    """Understand a body.

    Args:
        body: What was sent.
        max_payload: Bytes in a payload, at the most.
        lines: True where it is known to be one event a line; else that is found out.
        max_events: Events, at the most.

    Raises:
        PeerError: One of the events is not right; the text names it and its fault.
    """
    text = body.strip()
    if not text:
        raise EventError("the body is empty: send an event, an array of events, or one event a line")
    if lines:
        return _read_lines(body, max_payload, max_events)
    if text.startswith(b"["):
        return [one(item, f"item {at}", max_payload) for at, item in enumerate(_items(text, max_events))]
    try:
        return [one(text, "", max_payload)]
    except PeerError:
        first, *more = islice(_LINE.finditer(body), 2)
        if not more or not _is_json(first[0]):
            raise
    return _read_lines(body, max_payload, max_events)


def _items(text: bytes, limit: int) -> list[msgspec.Raw]:
    """The items of an array."""
    try:
        if text.count(b",") >= limit:
            _check_count(text, limit)
        return _several.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"not a JSON array of events: {error}") from error


def _check_count(text: bytes, limit: int) -> None:
    """Count the items of an array before there are objects for them: they would take 25 times the array's own bytes."""
    seen = count(1)

    def made(_: object) -> None:
        if next(seen) > limit:
            raise _too_many(limit)

    # A type of its own for each array: the counter is the type's. It keeps nothing of an item.
    item = msgspec.defstruct("Item", [], namespace={"__post_init__": made}, gc=False)
    msgspec.json.decode(text, type=list[item])  # type: ignore[valid-type]


def _read_lines(body: bytes, max_payload: int, limit: int) -> list[Event]:
    """The events of the lines that are not blank. Only a line with a fault needs its number."""
    events: list[Event] = []
    for found in _LINE.finditer(body):
        if len(events) == limit:
            raise _too_many(limit)
        try:
            events.append(one(found[0], "", max_payload))
        except PeerError:
            one(found[0], f"line {body.count(_NEWLINE, 0, found.start()) + 1}", max_payload)
            raise
    return events


def _too_many(limit: int) -> TooLargeError:
    return TooLargeError(f"more than {limit} events in one request: send them in several requests")


def _is_json(line: bytes) -> bool:
    """Whether a first line stands for itself, so that the body is one event a line."""
    try:
        _any.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True


def one(text: bytes | msgspec.Raw, where: str, max_payload: int, id_: str | None = None) -> Event:
    """Understand one event.

    Args:
        text: Its JSON.
        where: Names it in errors; empty where it is alone.
        max_payload: Bytes in a payload, at the most.
        id_: Its id, where it has none of its own; made where it is not given.

    Raises:
        PeerError: It is not right.
    """
    prefix = f"{where}: " if where else ""
    try:
        given = _one.decode(text)
        group, type_ = topics.from_name(given.group) if given.type is None else (given.group, given.type)
        payload = bytes(given.payload)
        if len(payload) > max_payload:
            raise TooLargeError(f"{prefix}payload of {len(payload)} bytes is over the limit of {max_payload}")
        return event(group, type_, payload, id=id_ if given.id is None else given.id, limit=max_payload)
    except TooLargeError:
        raise
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"{prefix}not an event: {error}") from error
    except PeerError as error:
        raise EventError(f"{prefix}{error}") from error
