"""What clients say, as a closed set of frozen values, and what a dialect can write. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from towerbus.access import Identity
from towerbus.errors import PeerError
from towerbus.topics import Topic


class MalformedError(PeerError):
    """A frame that says nothing in the dialect; the text says what is wrong with it."""


class AccessDeniedError(PeerError):
    """A whole message is refused for what it lacks, not for how it is written."""


class Denied(msgspec.Struct, frozen=True):
    """A name in a message that the client does not get.

    Attributes:
        group: As the client wrote it.
        type: As the client wrote it.
    """

    group: str
    type: str


class Subscribe(msgspec.Struct, frozen=True):
    """A client's wish: this set of topics in place of the one before.

    Attributes:
        topics: The well-formed ones.
        impossible: Those that no topic can be named.
        xrftoken: The `csrftoken` cookie, echoed.
    """

    topics: frozenset[Topic]
    impossible: tuple[Denied, ...] = ()
    xrftoken: str | None = None


class Farewell(msgspec.Struct, frozen=True):
    """How a dialect ends a session.

    Attributes:
        message: A last text message; None for none.
        code: The close code.
        reason: The close reason, for a person.
    """

    message: bytes | None
    code: int
    reason: str


class Dialect(Protocol):
    """One way of writing a session's messages."""

    def read(self, frame: bytes) -> Subscribe:
        """Understand a client's frame.

        Raises:
            MalformedError: It can't be understood.
            AccessDeniedError: It asks for what is refused as a whole.
        """

    def accepted(self, identity: Identity) -> bytes:
        """The first message of an authenticated session."""

    def acknowledged(self, current: frozenset[Topic], left: frozenset[Topic], joined: frozenset[Topic]) -> bytes:
        """The reply to a groups message."""

    def denied(self, names: Sequence[Denied]) -> Sequence[bytes]:
        """The refusals of single names that stand before the reply."""

    def error(self, error: PeerError) -> bytes:
        """The answer to a message that changed nothing."""

    def not_authenticated(self) -> Farewell:
        """The end of a session that did not get in, or whose time is over."""

    def try_later(self, reason: str) -> Farewell:
        """The end of a session that should come back later."""

    def slow(self) -> Farewell:
        """The end of a session that does not read fast enough."""

    def abuse(self, reason: str) -> Farewell:
        """The end of a session that goes on sending what can't be understood."""
