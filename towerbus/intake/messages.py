"""What comes through the AMQP intake: packed events from our own emitters, or one event as plain JSON. Pure.

Plain JSON is what any AMQP client can publish: the payload is the body, the topic the routing key (`group.type`), the
event's id the `message_id`, its time the `timestamp`. Ours packs what it has at hand in one message:
`[1, [event, ...]]` in MessagePack, each event as in a record of the log (log/packing.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from towerbus import topics
from towerbus.errors import PeerError
from towerbus.event import MAX_PAYLOAD, Event, EventError, check_payload, checked_id, checked_time, event

PACKED = "application/vnd.towerbus.events+msgpack"
"""Content type of packed events."""
KNOCK = "application/vnd.towerbus.knock"
"""Content type of a message that holds no event: a delivery is how a worker learns that it is the active one."""
VERSION = 1
INTERNAL = "_towerbus"
"""The group of our own events; a canary's type is `canary.NAME`."""


class _Message(msgspec.Struct, frozen=True, gc=False, array_like=True):
    version: int
    events: list[Event]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


def pack(events: Sequence[Event]) -> bytes:
    """Pack events as the body of one message with the content type `PACKED`."""
    return _encode(_Message(VERSION, list(events)))


def read(
    body: bytes,
    *,
    content_type: str | None,
    routing_key: str,
    message_id: str | None,
    timestamp: int | None = None,
    max_payload: int = MAX_PAYLOAD,
) -> list[Event]:
    """Understand a message of the intake; whoever may publish there may publish anything.

    Args:
        body: The message's bytes.
        content_type: Its content type.
        routing_key: The key it was published with.
        message_id: The producer's id for it.
        timestamp: Its time, in seconds since the epoch of Unix.
        max_payload: Bytes in a payload, at the most.

    Returns:
        The events, in order. A knock has none.

    Raises:
        PeerError: It can't be taken; the text says why.
    """
    if content_type == KNOCK:
        return []
    if content_type == PACKED:
        return read_packed(body, max_payload)
    group, type_ = topics.from_routing_key(routing_key)
    at = float(timestamp) if timestamp is not None else None
    return [event(group, type_, body, id=message_id, at=at, limit=max_payload)]


def read_packed(body: bytes, max_payload: int) -> list[Event]:
    """Understand a message with the content type `PACKED`.

    Args:
        body: The message's bytes.
        max_payload: Bytes in a payload, at the most.

    Returns:
        The events, in order.

    Raises:
        PeerError: It can't be taken; the text says why.
    """
    try:
        message = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"not packed events: {error}") from error
    if message.version != VERSION:
        raise EventError(f"packed events of version {message.version}; this edition reads version {VERSION}")
    for number, each in enumerate(message.events):
        try:
            _check(each, max_payload)
        except PeerError as error:
            raise EventError(f"event {number} of {len(message.events)}: {error}") from error
    return message.events


def _check(given: Event, max_payload: int) -> None:
    group, type_ = given.topic
    if group == INTERNAL:
        topics.topic(group, type_)
    else:
        topics.emittable(group, type_)
    checked_id(given.id)
    checked_time(given.time)
    check_payload(given.payload, max_payload)
