"""Events: one immutable thing that happened, as it is broadcast."""

from __future__ import annotations

import os
import re
import secrets
import time

import msgspec

from towerbus import topics
from towerbus.errors import PeerError
from towerbus.topics import Topic

MAX_PAYLOAD = 1024 * 1024
"""Bytes in a payload, at the most, unless configured otherwise."""

MAX_ID = 128
"""Characters in an event's id, at the most."""

MAX_TIME = 253_402_300_800.0
"""The end of the year 9999, in seconds since the epoch of Unix. A time in milliseconds is beyond it since 1978."""

_ID = re.compile(r"[!-~]+")
_DIGITS = 32
_AT_ONCE = 256
_ids: list[str] = []
# A child would give the same ids as its parent.
os.register_at_fork(after_in_child=_ids.clear)
_object = msgspec.json.Decoder(dict)


class EventError(PeerError):
    """What a producer gave can't be an event; the text says why."""


class Event(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event, checked. Make it with `event()`. The packed form (log/packing.py) has its parts in this order.

    Attributes:
        topic: Its address.
        payload: A non-empty JSON object in valid UTF-8, kept as the producer wrote it, byte for byte.
        id: Unique; an event emitted again with the same id is the same event.
        time: Seconds since the epoch of Unix, by the clock of whoever made the event.
    """

    topic: Topic
    payload: bytes
    id: str
    time: float


def event(
    group: str,
    type: str | int,  # noqa: A002 - the glossary's word
    payload: bytes,
    *,
    id: str | None = None,  # noqa: A002 - the glossary's word
    at: float | None = None,
    limit: int = MAX_PAYLOAD,
) -> Event:
    """Check what a producer gave, and make an event of it.

    Args:
        group: The group; not an internal one.
        type: The type, or an id.
        payload: The JSON text.
        id: The producer's id for it; one is made where there is none.
        at: When it happened, in seconds since the epoch of Unix; now, where it is not given.
        limit: Bytes in the payload, at the most.

    Raises:
        TopicError: The address is not right.
        EventError: The payload, the id or the time is not right.
    """
    address = topics.emittable(group, type)
    check_payload(payload, limit)
    id_ = new_id() if id is None else checked_id(id)
    return Event(address, payload, id_, time.time() if at is None else checked_time(at))


def new_id() -> str:
    """An id for an event whose producer gave none: nobody can guess it. The kernel gives the bits of many at once."""
    try:
        return _ids.pop()
    except IndexError:
        drawn = secrets.token_hex(_AT_ONCE * _DIGITS // 2)
        id_, *more = [drawn[at : at + _DIGITS] for at in range(0, len(drawn), _DIGITS)]
        _ids.extend(more)
        return id_


def checked_id(given: str) -> str:
    """Check an id that a producer gave: 1 to 128 visible ASCII characters."""
    if len(given) > MAX_ID or not _ID.fullmatch(given):
        raise EventError(f"id {given[:40]!r} must be 1 to {MAX_ID} visible ASCII characters without spaces")
    return given


def checked_time(given: float) -> float:
    """Check when an event happened: seconds since the epoch of Unix, before the year 10000."""
    if not 0 <= given < MAX_TIME:  # not a number is out as well
        raise EventError(f"time {given:.17g} is not in seconds since 1970 (in milliseconds?)")
    return given


def check_payload(payload: bytes, limit: int = MAX_PAYLOAD) -> None:
    """Check that a payload is a non-empty JSON object in valid UTF-8, no longer than `limit` bytes.

    Raises:
        EventError: It is not.
    """
    if len(payload) > limit:
        raise EventError(f"payload of {len(payload)} bytes is over the limit of {limit}")
    try:
        value = _object.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"payload is not a JSON object: {error}") from error
    if not value:
        raise EventError("payload is an empty object: clients take it for the end of the stream, so it is not sent")
