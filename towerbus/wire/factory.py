"""What makes a wire for each connection, and speaks to all of them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.logger import Logger

from towerbus.access import AccessRules
from towerbus.auth.interface import IAccessOracle, IAuthenticator, Turnover
from towerbus.catchup.room import CatchUp
from towerbus.dialects import tower
from towerbus.dialects.messages import Dialect, Farewell
from towerbus.dispatcher import Lane
from towerbus.positions import Lost
from towerbus.wire.deadlines import Deadlines
from towerbus.wire.fanout import FanOut
from towerbus.wire.frames import text_frame
from towerbus.wire.insides import settings_of
from towerbus.wire.outlet import Outlet
from towerbus.wire.websocket import EventsProtocol

_log = Logger()

_PORTS = {"http": 80, "https": 443}
SLICE = 200
"""Sessions that are ended, or looked at again, without a pause."""


class WireOptions(msgspec.Struct, frozen=True):
    """What can be set about the wire.

    Attributes:
        paths: The mounts, exact.
        max_frame: Bytes in a client's message, at the most; a larger one closes with 1009.
        outbox: Bytes that may wait for a client that reads slowly.
        ping_interval: Seconds between pings; a client of which nothing came between two of them is dropped.
        handshake_timeout: Seconds for the handshake, and again for the authentication.
        close_timeout: Seconds for a client to answer a close, and to read what stands before it.
        origins: Patterns of the `Origin` headers that are let in; none means all.
        session_cookies: Names of the application's session cookie, first found counts.
    """

    paths: tuple[str, ...] = ("/websocket/", "/websocket")
    max_frame: int = 64 * 1024
    outbox: int = 1024 * 1024
    ping_interval: float = 20.0
    handshake_timeout: float = 10.0
    close_timeout: float = 10.0
    origins: tuple[str, ...] = ()
    session_cookies: tuple[str, ...] = ("awx_sessionid", "sessionid")


def _with_port(pattern: str) -> str:
    """A pattern of origins as Autobahn compares it: with the port, also where a browser leaves it out (RFC 6454)."""
    scheme, _, host = pattern.partition("://")
    port = _PORTS.get(scheme)
    return pattern if port is None or re.search(r":[\d*]+$|\*$", host) else f"{pattern}:{port}"


class WebSocketCounts:
    """What happened on the wire so far, for the metrics."""

    def __init__(self) -> None:
        self.clients = 0
        self.handshakes_refused = 0
        self.auth_failures = 0
        self.slow_consumers = 0
        self.pings_unanswered = 0


class Spoken(NamedTuple):
    """A dialect as it is spoken over WebSockets.

    Attributes:
        dialect: How a session's messages are written.
        lane: The fan-out's lane with its writing of the events.
        deflated: The lane with the same, compressed; None where nothing is.
    """

    dialect: Dialect
    lane: Lane[Any]
    deflated: Lane[Any] | None = None

    @property
    def lanes(self) -> list[Lane[Any]]:
        """Those that there are."""
        return [self.lane] if self.deflated is None else [self.lane, self.deflated]


class EventsFactory(WebSocketServerFactory):  # type: ignore[misc]
    """Makes a wire for each connection.

    Args:
        options: What can be set.
        spoken: The dialects that are spoken, by their subprotocols.
        authenticator: Judges credentials.
        rules: Who may see what.
        oracle: Answers what the rules leave to the application; None where they leave nothing to it.
        fanout: What brings the events.
        catchup: Where clients get what they have missed.
        deadlines: The wheel for handshakes, pings and closes.
        expiries: The wheel for the ends of identities.
        now: Tells the time, in seconds since the epoch of Unix.
        reactor: The reactor.

    Attributes:
        counts: What happened on the wire so far.
        wires: The connections that there are.
        stale_since: Since when nothing may have come through, in seconds since the epoch of Unix; None while all is
            well.
    """

    def __init__(
        self,
        *,
        options: WireOptions,
        spoken: Mapping[str, Spoken],
        authenticator: IAuthenticator,
        rules: AccessRules,
        oracle: IAccessOracle | None,
        fanout: FanOut,
        catchup: CatchUp,
        deadlines: Deadlines,
        expiries: Deadlines,
        now: Callable[[], float],
        reactor: Any,
    ) -> None:
        super().__init__(server="towerbus", reactor=reactor)
        self.options = options
        self.spoken = spoken
        self.authenticator = authenticator
        self.rules = rules
        self.oracle = oracle
        self.fanout = fanout
        self.catchup = catchup
        self.deadlines = deadlines
        self.expiries = expiries
        self.now = now
        self.counts = WebSocketCounts()
        self.wires: set[EventsProtocol] = set()
        self.stale_since: float | None = None
        self._turnovers: deque[Turnover] = deque()
        self._call_later = reactor.callLater
        self._set_up_autobahn()
        self.protocol = type("EventsWire", (EventsProtocol,), {**settings_of(self), "spoken": spoken[tower.NAME]})

    def _set_up_autobahn(self) -> None:
        """Give Autobahn the bounds, and keep it from timers and pings of its own: the wheels have them."""
        options = self.options
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            failByDrop=False,
            echoCloseCodeReason=True,
            maxFramePayloadSize=options.max_frame,
            maxMessagePayloadSize=options.max_frame,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            autoPingInterval=0,
            allowedOrigins=[_with_port(pattern) for pattern in options.origins] or ["*"],
            allowNullOrigin=not options.origins,
            serveFlashSocketPolicy=False,
        )

    def stale(self, since: float) -> None:
        """Tell everybody that nothing may have come through since a time, in seconds since the epoch of Unix."""
        self.stale_since = since
        self._tell(lambda dialect: dialect.stale(since))

    def fresh(self) -> None:
        """Tell everybody that events come through again."""
        if self.stale_since is not None:
            self.stale_since = None
            self._tell(lambda dialect: dialect.fresh())

    def lost(self, lost: Lost) -> None:
        """Tell everybody that a part of the log went by unread, or end those that can't be told, in slices."""
        self.catchup.look_again()
        ending: list[EventsProtocol] = []
        for spoken, wires in self._listening().items():
            words = spoken.dialect.missed(lost)
            if isinstance(words, Farewell):
                ending += [wire for wire in wires if wire.session is not None and wire.session.heard]
            else:
                # Who is catching up hears of it when it gets there.
                self.fanout.tell(_outlets(wire for wire in wires if not wire.is_catching_up), text_frame(words))
        _log.warn("events_lost: {reason}", reason=lost.reason, **_places(lost), clients_ended=len(ending))
        self._in_slices(deque(ending), lambda wire: wire.missed(lost))

    def reconsider(self) -> None:
        """The rules have changed: look again at what everybody hears, in slices."""
        self._in_slices(deque(self.wires), lambda wire: wire.reconsider())

    def turn_over(self, turnover: Turnover) -> None:
        """Identities that were given out are no more, or are others: end their connections, or let them follow."""
        self._turnovers.append(turnover)
        if len(self._turnovers) == 1:
            self._next_turnover()

    def _tell(self, say: Callable[[Dialect], bytes | None]) -> None:
        """Tell everybody the same, in the words of their dialects."""
        for spoken, wires in self._listening().items():
            words = say(spoken.dialect)
            if words is not None:
                self.fanout.tell(_outlets(wires), text_frame(words))

    def _listening(self) -> dict[Spoken, list[EventsProtocol]]:
        """The clients that are in, by what they speak."""
        found: dict[Spoken, list[EventsProtocol]] = {}
        for wire in self.wires:
            if wire.is_in:
                found.setdefault(wire.spoken, []).append(wire)
        return found

    def _next_turnover(self) -> None:
        """One after the other: what an identity became in one may end in the next."""
        if self._turnovers:
            turnover = self._turnovers[0]
            self._in_slices(deque(self.wires), lambda wire: wire.turn_over(turnover), self._turned_over)

    def _turned_over(self) -> None:
        self._turnovers.popleft()
        self._next_turnover()

    def _in_slices(
        self, wires: deque[EventsProtocol], do: Callable[[EventsProtocol], None], done: Callable[[], None] | None = None
    ) -> None:
        """Do something with each, and let the others' events go out between."""
        for _ in range(min(len(wires), SLICE)):
            do(wires.popleft())
        if wires:
            self._call_later(0, self._in_slices, wires, do, done)
        elif done is not None:
            done()


def _outlets(wires: Iterable[EventsProtocol]) -> list[Outlet]:
    return [wire.outlet for wire in wires if wire.outlet is not None]


def _places(lost: Lost) -> dict[str, str]:
    return {"after": str(lost.after), "until": str(lost.until)}
