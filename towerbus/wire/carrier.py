"""What carries a session over one WebSocket connection: its wire, and its way to catch up. Nothing of the handshake."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from autobahn.websocket.protocol import WebSocketProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.access import Identity
from towerbus.dispatcher import Lane
from towerbus.interest import NOTHING, Interest
from towerbus.positions import Lost, Position
from towerbus.session import Session, State
from towerbus.session_wire import Past
from towerbus.topics import Topic
from towerbus.wire.frames import text_frame
from towerbus.wire.insides import LeanProtocol
from towerbus.wire.outlet import Outlet

if TYPE_CHECKING:
    from towerbus.wire.factory import EventsFactory, Spoken

_log = Logger()
P = ParamSpec("P")


def guarded(method: Callable[P, None]) -> Callable[P, None]:
    """Let no exception reach Autobahn, which would swallow it: log the failure and close with 1011."""

    @wraps(method)
    def guard(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:  # noqa: BLE001 - whatever it is, it is ours, and one session's only
            _log.failure("session_failed")
            wire: Any = args[0]
            wire.close(1011, "internal error")

    return guard


class Carrier(LeanProtocol):
    """The wire of one session."""

    factory: EventsFactory
    spoken: Spoken
    session: Session | None = None
    outlet: Outlet | None = None
    full = False
    mark = 0

    @property
    def is_in(self) -> bool:
        """Whether the client was let in, and is not being sent away."""
        return (
            self.session is not None
            and self.session.identity is not None
            and self.session.state is not State.CLOSED
            and self.state == WebSocketProtocol.STATE_OPEN
        )

    @property
    def lane(self) -> Lane[Any]:
        """How the events are written for this client."""
        deflated = self.spoken.deflated
        return deflated if deflated is not None and self.deflates else self.spoken.lane

    @property
    def is_catching_up(self) -> bool:
        """Whether the client hears nothing now but what was."""
        return self.session is not None and self.session.state is State.RESUMING and not self.session.heard

    def restart(self, after: float) -> None:
        """The server restarts: say so where the dialect can, and close."""
        if self.session is not None:
            self.session.restarting(after)
        self.close(1012, "restarting")

    @guarded
    def reconsider(self) -> None:
        """The rules have changed."""
        if self.session is not None:
            self.session.reconsider()

    # SessionWire

    def send(self, message: bytes) -> None:
        """Send one text message."""
        if not self.full:
            self._write(text_frame(message))

    def close(self, code: int, reason: str) -> None:
        """Close with any code; Autobahn's own `sendClose` knows only some."""
        if self.state != WebSocketProtocol.STATE_OPEN:
            return
        if self.session is not None:
            # Nothing may follow the close frame.
            self.session.lost()
        self.sendCloseFrame(code, reason.encode()[:123])
        self._set_deadline(self.factory.options.close_timeout)

    def flush(self) -> Position:
        """Send the client what has come."""
        return self.factory.fanout.flush()

    def subscribe(self, joined: Interest, left: Interest) -> None:
        """Change what the client hears."""
        if self.outlet is not None:
            self.factory.fanout.subscribe(self.lane, self.outlet, joined, left)

    def resume(self, past: Past) -> None:
        """Let the client catch up with what was."""
        self.factory.catchup.begin(self, self.lane, past)

    def abandon(self) -> None:
        """Send no more of what was."""
        self.factory.catchup.forget(self)

    def forget(self, interest: Interest) -> None:
        """Let the client hear nothing more."""
        if self.outlet is not None:
            self.factory.fanout.forget(self.lane, self.outlet, interest)

    def ask(self, identity: Identity, topics: frozenset[Topic]) -> None:
        """Ask the application about topics."""
        oracle = self.factory.oracle
        if oracle is None:
            self._answered(frozenset())
        else:
            oracle.allowed(identity, topics).addErrback(_no_topics).addCallback(self._answered)

    # Returning, for the catch-up

    @property
    def waiting(self) -> int:
        """Bytes that wait because the client reads slowly."""
        return 0 if self.outlet is None else self.outlet.waiting

    def write(self, data: bytes) -> None:
        """Send whole frames after everything that was sent before."""
        self._write(data)

    @guarded
    def recovered(self, position: Position, lost: Lost | None = None) -> None:
        """It is known from where on the client is sent what was."""
        if self.session is not None:
            self.session.recovered(position, lost)

    @guarded
    def missed(self, lost: Lost) -> None:
        """A part of what the client would have heard is lost."""
        if self.session is not None:
            self.session.missed(lost)

    @guarded
    def caught_up(self) -> None:
        """The client has been sent everything that was."""
        if self.session is not None:
            self.session.caught_up()

    @guarded
    def unavailable(self, reason: str) -> None:
        """What the client wants can't be told now."""
        if self.session is not None:
            self.session.unavailable(reason)

    @guarded
    def overflowed(self) -> None:
        """More would have to wait than the outbox takes."""
        if self.session is None or self.outlet is None or self.state != WebSocketProtocol.STATE_OPEN:
            return
        self.factory.counts.slow_consumers += 1
        _log.warn("slow_consumer: closed with {waiting} bytes waiting", waiting=self.outlet.waiting, user=self._user())
        # What did not fit is missing from here on: nothing may follow but the close.
        self.full = True
        self.outlet.close_soon()
        self.forget(NOTHING)
        self.session.slow()

    @guarded
    def _answered(self, allowed: frozenset[Topic]) -> None:
        if self.session is not None:
            self.session.answered(allowed)

    def _write(self, data: bytes) -> None:
        outlet = self.outlet
        if outlet is not None:
            self.factory.fanout.settle(outlet)
            outlet.write(data)

    def _user(self) -> int | str | None:
        return self.session.identity.user if self.session is not None and self.session.identity is not None else None

    def _set_deadline(self, seconds: float) -> None:
        deadlines = self.factory.deadlines
        deadlines.clear(self, self.mark)
        self.mark = deadlines.set(self, seconds)


def _no_topics(failure: Failure) -> frozenset[Topic]:
    _log.failure("ask_failed", failure)
    return frozenset()
