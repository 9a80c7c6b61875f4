"""The client's side of both dialects, as far as watching needs it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from towerbus.dialects import tower, v1
from towerbus.dialects.messages import Code
from towerbus.dialects.reading import ALL

KNOWN_TYPES = {"jobs": ["status_changed", "summary"], "schedules": ["changed"], "inventories": ["status_changed"]}
"""What a whole group means to a server that knows none."""

_ODD = (msgspec.MsgspecError, RecursionError, LookupError, TypeError, ValueError, ArithmeticError, OSError)
"""What comes of reading as it should be what is not."""
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode


class Listener(NamedTuple):
    """Who is told what.

    Attributes:
        event: Gets each event: the whole message, where there is more than the payload, and the payload as it was
            emitted.
        notice: Gets what a person should know.
    """

    event: Callable[[bytes, bytes], None]
    notice: Callable[[str], None]


class Watch:
    """What is watched, over all connections.

    Args:
        groups: Types by group; `*` for all of a group.
        listener: Who is told.
        since: The position behind which all events are wanted.

    Attributes:
        position: Where to go on after a lost connection; None where that is not known.
        welcome: Whether the server has answered on this connection.
        refused: Whether the server does not let the client in.
        after: Seconds after which the server asked it to come back, where it did.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]], listener: Listener, since: str | None = None) -> None:
        self._groups = groups
        self._listener = listener
        self._speaks_v1 = False
        self._resumed = False
        self.position = since
        self.welcome = self.refused = False
        self.after: float | None = None

    def opening(self, subprotocol: str | None) -> bytes:
        """What to say first on a new connection.

        Args:
            subprotocol: What the server has chosen.
        """
        self.welcome = self.refused = False
        self.after = None
        self._speaks_v1 = subprotocol == v1.NAME
        self._resumed = self.position is not None
        if self._speaks_v1:
            return _encode({"groups": self._groups, "since": self.position})
        if self._resumed:
            self._listener.notice(f"the server speaks only {tower.NAME}: what was missed is not sent again")
            self.position = None
        return _encode({"groups": dict(filter(None, map(self._in_tower, self._groups)))})

    def heard(self, payload: bytes) -> None:
        """Understand what the server says."""
        try:
            message = _raw.decode(payload)
            if self._speaks_v1:
                self._heard_v1(payload, message)
            else:
                self._heard_tower(payload, message)
        except _ODD:
            self._listener.notice(f"not a message of towerbus's: {payload[:60]!r}")

    def _heard_v1(self, payload: bytes, message: dict[str, msgspec.Raw]) -> None:
        if "data" in message:
            self.position = _read(message, "position")
            self._listener.event(payload, bytes(message["data"]))
        elif "groups_current" in message:
            self._answered(message)
        elif "error" in message:
            self.refused = _read(message, "code") == Code.NOT_AUTHENTICATED
            if not self.refused:
                self._listener.notice(str(_read(message, "error")))
        elif "gap" in message:
            self._listener.notice(_lost(_read(message, "gap")))
        elif "stale" in message:
            self._listener.notice(_stale(_read(message, "stale")))
        elif "reconnect" in message:
            self.after = float(_read(message, "reconnect")["after"])
        elif "position" in message:
            self.position = _read(message, "position")

    def _answered(self, message: dict[str, msgspec.Raw]) -> None:
        self.position = _read(message, "position")
        for name in _read(message, "groups_denied"):
            self._listener.notice(f"access denied to {name}")
        if "lost" in message:
            self._listener.notice(_lost(_read(message, "lost")))
        self._begin(message, ", from where it was" if self._resumed and "lost" not in message else "")

    def _heard_tower(self, payload: bytes, message: dict[str, msgspec.Raw]) -> None:
        if message.keys() == {"close"} and _read(message, "close") is True:
            self.refused = True
        elif message.keys() == {"error"}:
            self._listener.notice(str(_read(message, "error")))
        elif message.keys() == {"groups_current", "groups_left", "groups_joined"}:
            self._begin(message, "")
        elif message.keys() != {"accept", "user"}:
            self._listener.event(payload, payload)

    def _begin(self, message: dict[str, msgspec.Raw], how: str) -> None:
        self.welcome = True
        self._listener.notice("watching " + (" ".join(_read(message, "groups_current")) or "nothing") + how)

    def _in_tower(self, group: str) -> tuple[str, list[str]] | None:
        types = [type_ for type_ in self._groups[group] if type_ != ALL]
        if len(types) < len(self._groups[group]):
            if group not in KNOWN_TYPES:
                self._listener.notice(f"the server speaks only {tower.NAME}: {group} needs a type, as in {group}:42")
            types += KNOWN_TYPES.get(group, [])
        return (group, types) if types else None


def _read(message: dict[str, msgspec.Raw], key: str) -> Any:
    return msgspec.json.decode(message[key])


def _lost(lost: dict[str, str]) -> str:
    return f"events were lost between {lost['from']} and {lost['to']}: {lost['reason']}"


def _stale(stale: Any) -> str:
    if stale is False:
        return "events come through again"
    at = datetime.fromtimestamp(stale["since"], UTC)
    return f"no events may have come through since {at:%Y-%m-%d %H:%M:%S} UTC"
