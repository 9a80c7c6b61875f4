"""What producers post: one event, a JSON array of events, or one event a line (NDJSON). Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from towerbus import topics
from towerbus.errors import PeerError
from towerbus.event import MAX_PAYLOAD, Event, EventError, event

LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
"""Media types of a body with one event a line."""


class Given(msgspec.Struct):
    """An event as a producer writes it."""

    group: str
    payload: msgspec.Raw
    type: str | int | None = None
    id: str | None = None


class TooLargeError(EventError):
    """One payload is over the limit."""


_one = msgspec.json.Decoder(Given)
_several = msgspec.json.Decoder(list[msgspec.Raw])


def read(body: bytes, max_payload: int = MAX_PAYLOAD, *, lines: bool = False) -> list[Event]:
    """Understand a body.

    Args:
        body: What was sent.
        max_payload: Bytes in a payload, at the most.
        lines: True where it is known to be one event a line; else that is found out.

    Raises:
        PeerError: One of the events is not right; the text names it and its fault.
    """
    text = body.strip()
    if not text:
        raise EventError("the body is empty: send an event, an array of events, or one event a line")
    if lines:
        return [one(line, f"line {number}", max_payload) for number, line in _lines(body)]
    if text.startswith(b"["):
        try:
            items = [bytes(item) for item in _several.decode(text)]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise EventError(f"not a JSON array: {error}") from error
        return [one(item, f"item {number}", max_payload) for number, item in enumerate(items)]
    try:
        return [one(text, "", max_payload)]
    except PeerError:
        found = list(_lines(body))
        if len(found) == 1 or not _is_json(found[0][1]):
            raise
    return [one(line, f"line {number}", max_payload) for number, line in found]


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            yield number, line.strip()


def _is_json(line: bytes) -> bool:
    """Whether a first line stands for itself, so that the body is one event a line."""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True


def one(text: bytes, where: str, max_payload: int) -> Event:
    """Understand one event.

    Args:
        text: Its JSON.
        where: Names it in errors; empty where it is alone.
        max_payload: Bytes in a payload, at the most.

    Raises:
        PeerError: It is not right.
    """
    prefix = f"{where}: " if where else ""
    try:
        given = _one.decode(text)
        if given.type is None:
            group, type_ = topics.from_name(given.group)
        else:
            group, type_ = given.group, str(given.type)
        payload = bytes(given.payload)
        if len(payload) > max_payload:
            raise TooLargeError(f"{prefix}payload of {len(payload)} bytes is over the limit of {max_payload}")
        return event(group, type_, payload, id=given.id, limit=max_payload)
    except TooLargeError:
        raise
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"{prefix}not an event: {error}") from error
    except PeerError as error:
        raise EventError(f"{prefix}{error}") from error
