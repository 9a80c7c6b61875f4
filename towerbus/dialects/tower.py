"""The dialect `tower`: what Ansible Tower's pages, scripts and test suites speak. docs/protocol.md has it in prose."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from towerbus.access import Identity
from towerbus.dialects import reading
from towerbus.dialects.messages import AccessDeniedError, Farewell, MessageError, Reply, Subscribe
from towerbus.log.record import Record
from towerbus.positions import Lost, Position

NAME = "tower"
"""The WebSocket subprotocol, for clients that name one."""

_encode = msgspec.json.encode


class TowerDialect:
    """Reads and writes the messages of the dialect `tower`."""

    def read(self, frame: bytes) -> Subscribe:
        """Understand `{"groups": {group: [type, ...]}, "xrftoken": "..."}`; other keys are passed over."""
        message = reading.decoded(frame)
        try:
            wanted = reading.wanted(message, wildcards=False)
        except reading.NotAListError as error:
            # Tower's own answer, and like there the whole message is void.
            raise AccessDeniedError("access denied to channel") from error
        token = message.get("xrftoken")
        return Subscribe(
            wanted.topics, impossible=wanted.impossible, xrftoken=token if isinstance(token, str) else None
        )

    def accepted(self, identity: Identity) -> bytes:
        """`{"accept": true, "user": 7}`."""
        return _encode({"accept": True, "user": identity.user})

    def answers(self, reply: Reply) -> Sequence[bytes]:
        """One error for each name that is denied, in Tower's words; then three lists of joined names, sorted."""
        return [
            *(
                _encode({"error": f"access denied to channel {name.group} for resource id {name.type}"})
                for name in reply.denied
            ),
            _encode(
                {
                    "groups_current": reply.current.names,
                    "groups_left": reply.left.names,
                    "groups_joined": reply.joined.names,
                }
            ),
        ]

    def error(self, error: MessageError) -> bytes:
        """`{"error": "..."}`."""
        return _encode({"error": str(error)})

    def position(self, position: Position) -> None:  # noqa: ARG002
        """Nothing: there are no positions in this dialect."""

    def stale(self, since: float) -> None:  # noqa: ARG002
        """Nothing: these clients can't be told."""

    def fresh(self) -> None:
        """Nothing: these clients can't be told."""

    def missed(self, lost: Lost) -> Farewell:  # noqa: ARG002
        """1012: these clients can't be told, and read the state again when they come back."""
        return Farewell(None, 1012, "events were lost, come back and read the state again")

    def not_authenticated(self) -> Farewell:
        """`{"close": true}` and 1000: the code that stops Tower's pages from trying again for ever."""
        return Farewell(b'{"close":true}', 1000, "not authenticated")

    def try_later(self, reason: str) -> Farewell:
        """1013, with which Tower's pages come back."""
        return Farewell(None, 1013, reason)

    def restarting(self, after: float) -> Farewell:  # noqa: ARG002
        """1012."""
        return Farewell(None, 1012, "restarting")

    def slow(self) -> Farewell:
        """1013: what was missed is not sent again in this dialect."""
        return Farewell(None, 1013, "slow consumer: reads slower than its events come")

    def abuse(self, reason: str) -> Farewell:
        """1008."""
        return Farewell(None, 1008, reason)


def event(record: Record, place: int) -> bytes:
    """An event as this dialect's clients get it: the payload, byte for byte as it was emitted."""
    return record.events[place].payload
