"""A session: one client's state, free of I/O.

    AUTHENTICATING --authenticated--> OPEN <--received / answered--> ASKING
          any of them --refused, expired, slow, abuse, lost--> CLOSED

Frames that arrive while it authenticates or asks wait for it, bounded.
"""

from __future__ import annotations

import enum
import hmac
from typing import Protocol

from towerbus.access import AccessRules, Identity, Verdict
from towerbus.dialects.messages import (
    AccessDeniedError,
    Denied,
    Dialect,
    Farewell,
    MalformedError,
    Subscribe,
)
from towerbus.errors import PeerError
from towerbus.topics import Topic

MAX_WAITING = 64
"""Frames that may wait for authentication or for the application's answer."""
MAX_WAITING_BYTES = 128 * 1024
"""Bytes that these may hold together."""
MAX_STRIKES = 20
"""Malformed frames in a row before the session is ended."""

NO_TOPICS: frozenset[Topic] = frozenset()


class State(enum.Enum):
    """Where a session is."""

    AUTHENTICATING = "authenticating"
    OPEN = "open"
    ASKING = "asking"
    CLOSED = "closed"


class SessionWire(Protocol):
    """What carries a session."""

    def send(self, message: bytes) -> None:
        """Send one text message, after everything that was sent to this client before."""

    def close(self, code: int, reason: str) -> None:
        """Close with a code, after everything that was sent."""

    def subscribe(self, joined: frozenset[Topic], left: frozenset[Topic]) -> None:
        """Let the client hear the joined topics and no longer the left ones, from the next event on."""

    def ask(self, identity: Identity, topics: frozenset[Topic]) -> None:
        """Ask the application which of the topics the identity may see; `Session.answered` takes the answer."""


class Session:
    """One client's state and the rules of its conversation.

    Args:
        wire: What carries it.
        dialect: How its messages are written.
        rules: Who may see what.
    """

    __slots__ = (
        "_asking",
        "_csrf",
        "_dialect",
        "_rules",
        "_strikes",
        "_waiting",
        "_wire",
        "identity",
        "state",
        "topics",
    )

    def __init__(self, wire: SessionWire, dialect: Dialect, rules: AccessRules) -> None:
        self._wire = wire
        self._dialect = dialect
        self._rules = rules
        self._csrf: str | bool | None = False
        self._strikes = 0
        self._waiting: list[bytes | None] | None = None
        self._asking: Subscribe | None = None
        self.identity: Identity | None = None
        self.state = State.AUTHENTICATING
        self.topics = NO_TOPICS

    def authenticated(self, identity: Identity, *, csrf: str | bool | None = False) -> None:
        """Let the client in.

        Args:
            identity: Who it is.
            csrf: What each message has to echo as `xrftoken`: False when nothing has to, None when there was no
                cookie to echo, so that every message is refused.
        """
        if self.state is not State.AUTHENTICATING:
            return
        self.identity = identity
        self._csrf = csrf
        self.state = State.OPEN
        self._wire.send(self._dialect.accepted(identity))
        self._catch_up()

    def refused(self) -> None:
        """The client did not get in."""
        self._end(self._dialect.not_authenticated())

    def unavailable(self) -> None:
        """Nobody can tell now whether the client may get in."""
        self._end(self._dialect.try_later("authentication is not available now"))

    def expired(self) -> None:
        """The identity's time is over."""
        self._end(self._dialect.not_authenticated())

    def slow(self) -> None:
        """The client reads so slowly that its outbox is full."""
        self._end(self._dialect.slow())

    def lost(self) -> None:
        """The connection is gone, or is being closed by the peer."""
        self._forget()

    def received(self, frame: bytes | None) -> None:
        """Take a text frame from the client; None stands for a binary one."""
        if self.state is State.OPEN:
            self._take(frame)
        elif self.state is not State.CLOSED:
            self._keep(frame)

    def answered(self, allowed: frozenset[Topic]) -> None:
        """Take the application's answer to what was asked last."""
        wish, self._asking = self._asking, None
        if self.state is not State.ASKING or wish is None:
            return
        self.state = State.OPEN
        self._decide(wish, allowed)
        self._catch_up()

    def _take(self, frame: bytes | None) -> None:
        try:
            if frame is None:
                raise MalformedError("binary frame: send text frames that hold JSON")
            wish = self._dialect.read(frame)
            self._check_echo(wish)
        except MalformedError as error:
            self._strike(error)
        except AccessDeniedError as error:
            self._strikes = 0
            self._wire.send(self._dialect.error(error))
        else:
            self._strikes = 0
            self._consider(wish)

    def _check_echo(self, wish: Subscribe) -> None:
        if self._csrf is False:
            return
        if not isinstance(self._csrf, str) or not self._csrf or wish.xrftoken is None:
            raise AccessDeniedError("access denied to channel")
        if not hmac.compare_digest(self._csrf.encode(), wish.xrftoken.encode()):
            raise AccessDeniedError("access denied to channel")

    def _strike(self, error: PeerError) -> None:
        self._strikes += 1
        self._wire.send(self._dialect.error(error))
        if self._strikes >= MAX_STRIKES:
            self._end(self._dialect.abuse(f"{MAX_STRIKES} malformed messages in a row"))

    def _consider(self, wish: Subscribe) -> None:
        assert self.identity is not None  # noqa: S101 - the state says so
        ask = {topic for topic in wish.topics if self._rules.verdict(self.identity, topic) is Verdict.ASK}
        if ask:
            self.state = State.ASKING
            self._asking = wish
            self._wire.ask(self.identity, frozenset(ask))
        else:
            self._decide(wish, NO_TOPICS)

    def _decide(self, wish: Subscribe, allowed: frozenset[Topic]) -> None:
        """Replace the set: leave what is not named, keep what is, join the rest; then say so."""
        assert self.identity is not None  # noqa: S101 - the state says so
        verdict = self._rules.verdict
        granted = frozenset(
            topic for topic in wish.topics if topic in allowed or verdict(self.identity, topic) is Verdict.ALLOWED
        )
        joined, left = granted - self.topics, self.topics - granted
        if joined or left:
            self._wire.subscribe(joined, left)
            self.topics = granted
        refusals = [*wish.impossible, *(Denied(topic.group, topic.type) for topic in sorted(wish.topics - granted))]
        for message in self._dialect.denied(refusals):
            self._wire.send(message)
        self._wire.send(self._dialect.acknowledged(granted, left, joined))

    def _keep(self, frame: bytes | None) -> None:
        waiting = [*(self._waiting or ()), frame]
        if len(waiting) > MAX_WAITING or sum(len(kept) for kept in waiting if kept is not None) > MAX_WAITING_BYTES:
            self._end(self._dialect.abuse("too many messages at once"))
        else:
            self._waiting = waiting

    def _catch_up(self) -> None:
        while self._waiting and self.state is State.OPEN:
            self._take(self._waiting.pop(0))
        if not self._waiting:
            self._waiting = None

    def _end(self, farewell: Farewell) -> None:
        if self.state is State.CLOSED:
            return
        self._forget()
        if farewell.message is not None:
            self._wire.send(farewell.message)
        self._wire.close(farewell.code, farewell.reason)

    def _forget(self) -> None:
        self.state = State.CLOSED
        left, self.topics = self.topics, NO_TOPICS
        self._waiting = self._asking = None
        if left:
            self._wire.subscribe(NO_TOPICS, left)
