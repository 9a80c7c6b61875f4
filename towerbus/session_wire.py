"""The seam between a session and what carries it. Values."""

from __future__ import annotations

from typing import Protocol

import msgspec

from towerbus.access import Identity
from towerbus.interest import Interest
from towerbus.positions import Position
from towerbus.topics import Topic


class Past(msgspec.Struct, frozen=True):
    """What a client wants of what was, before it hears what comes.

    Attributes:
        interest: The topics and groups that it joins.
        without: Topics of those groups that it has been hearing all along.
        since: The place behind which all events are wanted.
        last: How many of the newest events of each topic are wanted, where there is no such place.
    """

    interest: Interest
    without: frozenset[Topic] = frozenset()
    since: Position | None = None
    last: int | None = None


class SessionWire(Protocol):
    """What carries a session."""

    def send(self, message: bytes) -> None:
        """Send one text message, after everything that was sent to this client before."""

    def close(self, code: int, reason: str) -> None:
        """Close with a code, after everything that was sent."""

    def flush(self) -> Position:
        """Send the client what has come of what it hears; it may prove slow by that, and be told to end.

        Returns:
            The place up to which it has got everything.
        """

    def subscribe(self, joined: Interest, left: Interest) -> None:
        """Let the client hear what joins and no longer what is left, from the next event on."""

    def resume(self, past: Past) -> None:
        """Send the client what was.

        It calls `Session.recovered` when it is known what there is, `Session.missed` where some of it is lost on the
        way, and `Session.caught_up` in the turn in which there is no more.
        """

    def abandon(self) -> None:
        """Send no more of what was."""

    def forget(self, interest: Interest) -> None:
        """Let the client hear nothing more, and drop what it has not been sent yet."""

    def ask(self, identity: Identity, topics: frozenset[Topic]) -> None:
        """Ask the application which of the topics the identity may see; `Session.answered` takes the answer."""
