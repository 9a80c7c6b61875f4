"""A session: one client's state, free of I/O.

    AUTHENTICATING --authenticated--> OPEN <--received / answered--> ASKING
                                      OPEN <--received / caught_up--> RESUMING
          any of them --refused, expired, slow, abuse, lost--> CLOSED

Frames that arrive while it authenticates, asks or resumes wait for it, bounded. While it resumes it hears what it heard
before and still wants; what joins is read from the log first, and heard when that has caught up.
"""

from __future__ import annotations

import enum
import hmac

import msgspec

from towerbus.access import AccessRules, Identity
from towerbus.dialects.messages import (
    AccessDeniedError,
    Denied,
    Dialect,
    Farewell,
    MalformedError,
    MessageError,
    Reply,
    Subscribe,
)
from towerbus.interest import NOTHING, Interest, handed_over
from towerbus.positions import Lost, Position
from towerbus.session_wire import Past, SessionWire
from towerbus.topics import Topic

MAX_WAITING = 64
"""Frames that may wait for authentication, for the application's answer, or for what was missed."""
MAX_WAITING_BYTES = 128 * 1024
"""Bytes that these may hold together."""
MAX_STRIKES = 20
"""Malformed frames in a row before the session is ended."""


class _Again(Subscribe, frozen=True):
    """A wish that is looked at again, for the rules have changed."""


class State(enum.Enum):
    """Where a session is."""

    AUTHENTICATING = "authenticating"
    OPEN = "open"
    ASKING = "asking"
    RESUMING = "resuming"
    CLOSED = "closed"


class Session:
    """One client's state and the rules of its conversation.

    Args:
        wire: What carries it.
        dialect: How its messages are written.
        rules: Who may see what.

    Attributes:
        identity: Who the client is, once that is known.
        state: Where the session is.
        heard: What the client hears from one event to the next.
    """

    __slots__ = (
        "_asking",
        "_csrf",
        "_dialect",
        "_resuming",
        "_rules",
        "_strikes",
        "_told",
        "_waiting",
        "_wire",
        "heard",
        "identity",
        "state",
    )

    def __init__(self, wire: SessionWire, dialect: Dialect, rules: AccessRules) -> None:
        self._wire = wire
        self._dialect = dialect
        self._rules = rules
        self._csrf: str | bool | None = False
        self._strikes = 0
        self._waiting: list[bytes | None] | None = None
        self._asking: Subscribe | None = None
        self._resuming: Reply | None = None
        self._told: Position | None = None
        self.identity: Identity | None = None
        self.state = State.AUTHENTICATING
        self.heard = NOTHING

    def authenticated(self, identity: Identity, *, csrf: str | bool | None = False, stale: float | None = None) -> None:
        """Let the client in.

        Args:
            identity: Who it is.
            csrf: What each message has to echo as `xrftoken`: False when nothing has to, None when there was no
                cookie to echo, so that every message is refused.
            stale: Since when nothing may have come through, in seconds since the epoch of Unix, where that is so.
        """
        if self.state is not State.AUTHENTICATING:
            return
        self.identity = identity
        self._csrf = csrf
        self.state = State.OPEN
        self._wire.send(self._dialect.accepted(identity))
        if stale is not None:
            self._say(self._dialect.stale(stale))
        self._take_waiting()

    def refused(self) -> None:
        """The client did not get in."""
        self._end(self._dialect.not_authenticated())

    def unavailable(self, reason: str) -> None:
        """What the client wants can't be told now."""
        self._end(self._dialect.try_later(reason))

    def expired(self) -> None:
        """The identity's time is over."""
        self._end(self._dialect.not_authenticated())

    def restarting(self, after: float) -> None:
        """The server restarts; the client should come back after some seconds."""
        self._end(self._dialect.restarting(after))

    def become(self, identity: Identity) -> None:
        """The client is the same, and may see something else from now on."""
        if self.identity is not None and self.state is not State.CLOSED:
            self.identity = identity
            self.reconsider()

    def reconsider(self) -> None:
        """The rules have changed: what they do not let the client see any more, it does not hear any more."""
        if self.identity is None or self.state is State.CLOSED:
            return
        if self.state is State.OPEN:
            wish = _Again(self.heard.topics, self._groups(self.heard))
            self._consider(wish)
        elif self.state is State.ASKING:
            self._hear(self._still(self.heard))
        elif self._resuming is not None and self._still(self._resuming.current) != self._resuming.current:
            # What it is being sent was chosen by the old rules: it comes back, with its position.
            self.restarting(0.0)

    def slow(self) -> None:
        """The client reads so slowly that its outbox is full. What it was not sent, it is not sent any more."""
        if self.state is not State.CLOSED:
            self._forget()
            self._say_farewell(self._dialect.slow())

    def lost(self) -> None:
        """The connection is gone, or is being closed by the peer."""
        if self.state is not State.CLOSED:
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
        # The rules may be others than when the application was asked.
        assert self.identity is not None  # noqa: S101 - the state says so
        judged = self._rules.judged(self.identity, wish.topics)
        self._decide(wish, judged.allowed | (judged.ask & allowed))
        self._take_waiting()

    def recovered(self, position: Position, lost: Lost | None = None) -> None:
        """Take what became of the past that the client wants: from where on it is sent, and what of it is lost."""
        if self._resuming is not None:
            self._answer(msgspec.structs.replace(self._resuming, position=position, lost=lost))

    def missed(self, lost: Lost) -> None:
        """A part of the log that the client would have heard of is lost."""
        if self.state in {State.AUTHENTICATING, State.CLOSED}:
            return
        words = self._dialect.missed(lost)
        if isinstance(words, Farewell):
            self._end(words)
        else:
            self._wire.send(words)

    def caught_up(self) -> None:
        """All of the past has been sent: from the next event on the client hears everything that it wants."""
        reply, self._resuming = self._resuming, None
        if reply is None:
            return
        position = self._hear(reply.current)
        if position is not None:
            self._told = position
            self.state = State.OPEN
            self._say(self._dialect.position(position))
            self._take_waiting()

    def keepalive(self, position: Position) -> bytes | None:
        """What to say with a ping, so that the position of a client that hears little does not grow old.

        Args:
            position: The place up to which it has got everything that it hears.
        """
        if self.state is not State.OPEN or not self.heard or position == self._told:
            return None
        self._told = position
        return self._dialect.position(position)

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
            raise AccessDeniedError("access denied to channel", wish.id)
        if not hmac.compare_digest(self._csrf.encode(), wish.xrftoken.encode()):
            raise AccessDeniedError("access denied to channel", wish.id)

    def _strike(self, error: MessageError) -> None:
        self._strikes += 1
        self._wire.send(self._dialect.error(error))
        if self._strikes >= MAX_STRIKES:
            self._end(self._dialect.abuse(f"{MAX_STRIKES} malformed messages in a row"))

    def _consider(self, wish: Subscribe) -> None:
        assert self.identity is not None  # noqa: S101 - the state says so
        judged = self._rules.judged(self.identity, wish.topics)
        if judged.ask:
            self.state = State.ASKING
            self._asking = wish
            self._wire.ask(self.identity, judged.ask)
        else:
            self._decide(wish, judged.allowed)

    def _decide(self, wish: Subscribe, allowed: frozenset[Topic]) -> None:
        """Replace the set: leave what is not named, keep what is, join the rest; then say so."""
        assert self.identity is not None  # noqa: S101 - the state says so
        granted = Interest(allowed, self._rules.sights(self.identity, wish.groups))
        denied = [
            *wish.impossible,
            *(Denied(*topic) for topic in sorted(wish.topics - granted.topics)),
            *(Denied(group, "*") for group in sorted(wish.groups - {sight.group for sight in granted.sights})),
        ]
        joined, left = granted.without(self.heard), self.heard.without(granted)
        if isinstance(wish, _Again) and not joined and not left:
            return
        if wish.since is not None or wish.last is not None:
            self._resume(Reply(wish, granted, left, joined, denied))
            return
        position = self._hear(granted)
        if position is not None:
            self._answer(Reply(wish, granted, left, joined, denied, position))

    def _hear(self, interest: Interest) -> Position | None:
        """Hear this in place of what was heard so far.

        Returns:
            The place from which on; None where the client has proved slow by what came before.
        """
        position = self._wire.flush()
        if self.state is State.CLOSED:
            return None
        self._wire.subscribe(interest.without(self.heard), self.heard.without(interest))
        self.heard = interest
        return position

    def _still(self, interest: Interest) -> Interest:
        """What the rules leave of it; the application is not asked for that."""
        assert self.identity is not None  # noqa: S101 - the state says so
        judged = self._rules.judged(self.identity, interest.topics)
        return Interest(judged.allowed | judged.ask, self._rules.sights(self.identity, self._groups(interest)))

    @staticmethod
    def _groups(interest: Interest) -> frozenset[str]:
        return frozenset(sight.group for sight in interest.sights)

    def _resume(self, reply: Reply) -> None:
        """Ask for the past of what joins; what was heard so far, and still is, goes on."""
        on, joined, without = handed_over(self.heard, reply.current, self._rules.opens)
        if self._hear(on) is None:
            return
        self.state = State.RESUMING
        self._resuming = reply
        self._wire.resume(Past(joined, without, reply.wish.since, reply.wish.last))

    def _answer(self, reply: Reply) -> None:
        self._told = reply.position
        for message in self._dialect.answers(reply):
            self._wire.send(message)

    def _keep(self, frame: bytes | None) -> None:
        waiting = [*(self._waiting or ()), frame]
        if len(waiting) > MAX_WAITING or sum(len(kept) for kept in waiting if kept is not None) > MAX_WAITING_BYTES:
            self._end(self._dialect.abuse("too many messages at once"))
        else:
            self._waiting = waiting

    def _take_waiting(self) -> None:
        while self._waiting and self.state is State.OPEN:
            self._take(self._waiting.pop(0))
        if not self._waiting:
            self._waiting = None

    def _say(self, message: bytes | None) -> None:
        if message is not None:
            self._wire.send(message)

    def _end(self, farewell: Farewell) -> None:
        """End after what the client has heard until now."""
        if self.state is State.CLOSED:
            return
        heard = self._close()
        if heard:
            self._wire.flush()
            self._wire.subscribe(NOTHING, heard)
        self._say_farewell(farewell)

    def _forget(self) -> None:
        """End here and now."""
        self._wire.forget(self._close())

    def _close(self) -> Interest:
        """What has to be left."""
        self.state = State.CLOSED
        heard, self.heard = self.heard, NOTHING
        if self._resuming is not None:
            self._resuming = None
            self._wire.abandon()
        self._waiting = self._asking = None
        return heard

    def _say_farewell(self, farewell: Farewell) -> None:
        self._say(farewell.message)
        self._wire.close(farewell.code, farewell.reason)
