"""The dialect `towerbus.v1`: positions, and the way back without a seam. docs/protocol.md has it in prose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from towerbus import positions
from towerbus.access import Identity
from towerbus.dialects import reading
from towerbus.dialects.messages import Code, Farewell, MalformedError, MessageError, Reply, Subscribe
from towerbus.log.record import Record
from towerbus.positions import Lost, Position, PositionError

NAME = "towerbus.v1"
"""The WebSocket subprotocol that chooses it."""

MAX_LAST = 100
"""Events of each topic that `last` may ask for."""
MAX_LAST_EVENTS = 5000
"""Events that one message may ask for with `last`, over all its topics."""
MAX_ID = 128
"""Characters in a message's id."""
MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps as it is (RFC 8259 section 6)."""

_encode = msgspec.json.encode


class V1Dialect:
    """Reads and writes the messages of the dialect `towerbus.v1`."""

    def read(self, frame: bytes) -> Subscribe:
        """Understand a groups message with `since`, `last` and `id`; null is as good as absent."""
        message = reading.decoded(frame)
        id_ = _id(message.get("id"))
        try:
            return _subscribe(message, id_)
        except MalformedError as error:
            error.id = id_
            raise

    def accepted(self, identity: Identity) -> bytes:
        """`{"accept": true, "user": 7}`."""
        return _encode({"accept": True, "user": identity.user})

    def answers(self, reply: Reply) -> Sequence[bytes]:
        """One message, with the position, with what is denied, and with what became of `since`."""
        answer: dict[str, Any] = {
            "groups_current": reply.current.names,
            "groups_left": reply.left.names,
            "groups_joined": reply.joined.names,
            "groups_denied": sorted(f"{name.group}-{name.type}" for name in reply.denied),
            "position": str(reply.position),
        }
        if reply.wish.since is not None:
            answer["recovered"] = reply.lost is None
        if reply.lost is not None:
            answer["lost"] = _range(reply.lost)
        if reply.wish.id is not None:
            answer["id"] = reply.wish.id
        return [_encode(answer)]

    def error(self, error: MessageError) -> bytes:
        """`{"error": "...", "code": "malformed", "id": 1}`."""
        return _error(str(error), error.code, error.id)

    def position(self, position: Position) -> bytes:
        """`{"position": "..."}`."""
        return b'{"position":"%s"}' % str(position).encode()

    def stale(self, since: float) -> bytes:
        """`{"stale": {"since": 1767225600.0}}`."""
        return _encode({"stale": {"since": since}})

    def fresh(self) -> bytes:
        """`{"stale": false}`."""
        return b'{"stale":false}'

    def missed(self, lost: Lost) -> bytes:
        """`{"gap": {"from", "to", "reason"}}`."""
        return _encode({"gap": _range(lost)})

    def not_authenticated(self) -> Farewell:
        """An error, and 4401."""
        text = "not authenticated: the credential is missing, wrong or expired"
        return Farewell(_error(text, Code.NOT_AUTHENTICATED), 4401, "not authenticated")

    def try_later(self, reason: str) -> Farewell:
        """An error, and 1013."""
        return Farewell(_error(f"{reason}: come back later", Code.UNAVAILABLE), 1013, reason)

    def restarting(self, after: float) -> Farewell:
        """`{"reconnect": {"after": 2.5}}`, and 1012."""
        return Farewell(_encode({"reconnect": {"after": round(after, 1)}}), 1012, "restarting")

    def slow(self) -> Farewell:
        """4408: what was not sent can be fetched by position."""
        return Farewell(None, 4408, "slow consumer: resume with your last position")

    def abuse(self, reason: str) -> Farewell:
        """1008."""
        return Farewell(None, 1008, reason)


def event(record: Record, place: int) -> bytes:
    """An event as this dialect's clients get it: the payload's bytes as they were emitted, with address and place."""
    made = record.events[place]
    group, type_ = made.topic
    head = f'{{"group":"{group}","type":"{type_}","position":"{record.position(place)}","id":'
    return b'%s%s,"time":%s,"data":%s}' % (head.encode(), _encode(made.id), _encode(made.time), made.payload)


def _subscribe(message: dict[str, Any], id_: str | int | None) -> Subscribe:
    wanted = reading.wanted(message, wildcards=True)
    since, last = _since(message.get("since")), _last(message.get("last"))
    if since is not None and last is not None:
        raise MalformedError('"since" and "last" exclude each other: send the one or the other')
    if last is not None and last * len(wanted.topics) > MAX_LAST_EVENTS:
        raise MalformedError(
            f'"last": {last} of {len(wanted.topics)} topics is more than {MAX_LAST_EVENTS} events: ask for fewer',
            Code.TOO_MANY,
        )
    token = message.get("xrftoken")
    return Subscribe(*wanted, token if isinstance(token, str) else None, since, last, id_)


def _id(given: object) -> str | int | None:
    match given:
        case None:
            return None
        case str() if len(given) <= MAX_ID:
            return given
        case int() if not isinstance(given, bool) and abs(given) <= MAX_INTEGER:
            return given
    raise MalformedError(f'"id" must be a string of at most {MAX_ID} characters, or an integer of at most 53 bits')


def _since(given: object) -> Position | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise MalformedError(f'"since" must be a position, which is a string, not {reading.kind(given)}')
    try:
        return positions.parse(given)
    except PositionError as error:
        raise MalformedError(f'"since": {error}', Code.BAD_POSITION) from error


def _last(given: object) -> int | None:
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= MAX_LAST:
        number = isinstance(given, int | float) and not isinstance(given, bool)
        shown = f"{given}" if number else reading.kind(given)
        raise MalformedError(f'"last" must be an integer from 1 to {MAX_LAST}, not {shown[:40]}')
    return given


def _range(lost: Lost) -> dict[str, str]:
    return {"from": str(lost.after), "to": str(lost.until), "reason": lost.reason}


def _error(text: str, code: Code, id_: str | int | None = None) -> bytes:
    made: dict[str, str | int] = {"error": text, "code": code}
    if id_ is not None:
        made["id"] = id_
    return _encode(made)
