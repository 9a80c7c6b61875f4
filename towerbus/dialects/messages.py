"""What clients say, as a closed set of frozen values, and what a dialect can write. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from towerbus.access import Identity
from towerbus.errors import PeerError
from towerbus.interest import Interest
from towerbus.positions import Lost, Position
from towerbus.topics import Topic


class Code(enum.StrEnum):
    """What is wrong, in a word for programs. The set is closed: docs/protocol.md says what to do on each."""

    MALFORMED = "malformed"
    TOO_MANY = "too_many"
    BAD_POSITION = "bad_position"
    ACCESS_DENIED = "access_denied"
    NOT_AUTHENTICATED = "not_authenticated"
    UNAVAILABLE = "unavailable"


class MessageError(PeerError):
    """A message that changes nothing.

    Args:
        text: What is wrong, and how to mend it.
        code: The same in a word.
        id: The message's own id, where it has one.
    """

    def __init__(self, text: str, code: Code, id: str | int | None = None) -> None:  # noqa: A002 - the wire's word
        super().__init__(text)
        self.code = code
        self.id = id


class MalformedError(MessageError):
    """A frame that says nothing in the dialect; the text says what is wrong with it."""

    def __init__(self, text: str, code: Code = Code.MALFORMED) -> None:
        super().__init__(text, code)


class AccessDeniedError(MessageError):
    """A whole message is refused for what it lacks, not for how it is written."""

    def __init__(self, text: str, id: str | int | None = None) -> None:  # noqa: A002 - the wire's word
        super().__init__(text, Code.ACCESS_DENIED, id)


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
        groups: Those of which all topics are wanted.
        impossible: Those that no topic can be named.
        xrftoken: The `csrftoken` cookie, echoed.
        since: The place behind which all events of the topics that join are wanted.
        last: How many of the newest events of each topic that joins are wanted.
        id: What the client calls the message.
    """

    topics: frozenset[Topic]
    groups: frozenset[str] = frozenset()
    impossible: tuple[Denied, ...] = ()
    xrftoken: str | None = None
    since: Position | None = None
    last: int | None = None
    id: str | int | None = None


class Reply(msgspec.Struct, frozen=True):
    """The answer to a client's wish.

    Attributes:
        wish: The wish.
        current: What it hears now.
        left: What it heard before.
        joined: What it did not hear before.
        denied: What it does not get.
        position: The place from which on the events of the joined topics follow; None until it is known.
        lost: Which part of what was wanted is lost; None where nothing is.
    """

    wish: Subscribe
    current: Interest
    left: Interest
    joined: Interest
    denied: Sequence[Denied]
    position: Position | None = None
    lost: Lost | None = None


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
    """One way of writing a session's messages. What it has no words for is None."""

    def read(self, frame: bytes) -> Subscribe:
        """Understand a client's frame.

        Raises:
            MalformedError: It can't be understood.
            AccessDeniedError: It asks for what is refused as a whole.
        """

    def accepted(self, identity: Identity) -> bytes:
        """The first message of an authenticated session."""

    def answers(self, reply: Reply) -> Sequence[bytes]:
        """The answer to a groups message."""

    def error(self, error: MessageError) -> bytes:
        """The answer to a message that changed nothing."""

    def position(self, position: Position) -> bytes | None:
        """Everything up to a place has been sent."""

    def stale(self, since: float) -> bytes | None:
        """Nothing may have come through since a time, in seconds since the epoch of Unix."""

    def fresh(self) -> bytes | None:
        """Events come through again."""

    def missed(self, lost: Lost) -> bytes | Farewell:
        """A part of the log was lost; a session that can't be told is ended."""

    def not_authenticated(self) -> Farewell:
        """The end of a session that did not get in, or whose time is over."""

    def try_later(self, reason: str) -> Farewell:
        """The end of a session that should come back later."""

    def restarting(self, after: float) -> Farewell:
        """The end of a session because the server restarts; it should come back after some seconds."""

    def slow(self) -> Farewell:
        """The end of a session that does not read fast enough."""

    def abuse(self, reason: str) -> Farewell:
        """The end of a session that goes on sending what can't be understood."""
