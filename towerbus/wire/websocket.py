"""The WebSocket adapter: carries a session over one Autobahn connection.

A thin shell. What is said stands in the dialect, what follows from it in the session; here are the handshake, the
credentials' way to the authenticator, the deadlines, and the closing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec
from urllib.parse import parse_qs, urlsplit

import msgspec
from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.access import AccessRules, Identity
from towerbus.auth.credentials import credential
from towerbus.auth.interface import Credential, IAccessOracle, IAuthenticator, Kind, NotNow, Refused
from towerbus.dialects import tower
from towerbus.dispatcher import Lane
from towerbus.session import Session
from towerbus.topics import Topic
from towerbus.wire.deadlines import Deadlines
from towerbus.wire.fanout import FanOut
from towerbus.wire.frames import PING, text_frame
from towerbus.wire.insides import LeanProtocol, settings_of
from towerbus.wire.outlet import Outlet

_log = Logger()
P = ParamSpec("P")


class WireOptions(msgspec.Struct, frozen=True):
    """What can be set about the wire.

    Attributes:
        paths: The mounts, exact.
        max_frame: Bytes in a client's message, at the most; a larger one closes with 1009.
        outbox: Bytes that may wait for a client that reads slowly.
        ping_interval: Seconds between pings; a client that said nothing in two of them is dropped.
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


class WebSocketCounts:
    """What happened on the wire so far, for the metrics."""

    def __init__(self) -> None:
        self.clients = 0
        self.handshakes_refused = 0
        self.auth_failures = 0
        self.slow_consumers = 0
        self.pings_unanswered = 0


def _guarded(method: Callable[P, None]) -> Callable[P, None]:
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


class EventsProtocol(LeanProtocol):
    """One connection: the wire of one session."""

    factory: EventsFactory
    session: Session | None = None
    outlet: Outlet | None = None
    heard = True
    pinged = False
    mark = 0
    expiry = 0

    def connectionMade(self) -> None:
        """Begin, with a deadline for the handshake."""
        super().connectionMade()
        self.factory.wires.add(self)
        self.outlet = Outlet(self.transport, self.factory.options.outbox, self.overflowed)
        self._set_deadline(self.factory.options.handshake_timeout)

    def connectionLost(self, reason: Any = None) -> None:
        """End: whatever was held for the client is let go."""
        super().connectionLost(reason)
        self.factory.wires.discard(self)
        self.factory.deadlines.clear(self, self.mark)
        if self.expiry:
            self.factory.expiries.clear(_Expiry(self), self.expiry)
        if self.outlet is not None:
            self.outlet.closed()

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; whatever they are, the client lives."""
        self.heard = True
        if self.state != WebSocketProtocol.STATE_CONNECTING or self.outlet is None:
            super().dataReceived(data)
            return
        # The end of the handshake and the session's first words are one send.
        release = self.outlet.hold()
        try:
            super().dataReceived(data)
        finally:
            release()

    def onConnect(self, request: Any) -> str | None:
        """Look at the handshake: the path, the origin, and what the client shows of itself."""
        if request.path not in self.factory.options.paths:
            raise ConnectionDeny(404, f"no such path; the WebSocket is at {self.factory.options.paths[0]}")
        self._shown = credential(
            # Autobahn passes over a parameter without a value; an empty token is found, and bad.
            params=parse_qs(urlsplit(self.http_request_uri).query, keep_blank_values=True),
            headers=request.headers,
            protocols=request.protocols,
            address=self._address(request.headers),
            session_cookies=self.factory.options.session_cookies,
        )
        return tower.NAME if tower.NAME in request.protocols else None

    @_guarded
    def onOpen(self) -> None:
        """Begin the session, and authenticate."""
        factory = self.factory
        factory.counts.clients += 1
        self.session = Session(self, factory.dialect, factory.rules)
        self._set_deadline(factory.options.handshake_timeout)
        shown = self.__dict__.pop("_shown", None)
        if shown is None:
            self._not_let_in("no credential")
            return
        try:
            answer = factory.authenticator.authenticate(shown)
        except (Refused, NotNow) as error:
            self._failed(Failure(error))
        else:
            if isinstance(answer, Deferred):
                answer.addCallback(self._judged, shown).addErrback(self._failed)
            else:
                self._judged(answer, shown)

    @_guarded
    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803 - Autobahn's name
        """Pass a message on to the session."""
        if self.session is not None:
            self.session.received(None if isBinary else payload)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool | None:  # noqa: N803 - Autobahn's name
        """The client closes, or answers our close: nothing may be sent behind the close frame."""
        if self.session is not None:
            self.session.lost()
        return super().onCloseFrame(code, reasonRaw)  # type: ignore[no-any-return]

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002, N803
        """The connection is gone."""
        if self.session is not None:
            self.factory.counts.clients -= 1
            self.session.lost()
            self.session = None

    def due(self) -> None:
        """A deadline has come: of the handshake or the closing, or to ping."""
        if self.session is None or self.session.identity is None or self.state != WebSocketProtocol.STATE_OPEN:
            self._abort("handshake, authentication or close took too long")
        elif self.pinged and not self.heard:
            self.factory.counts.pings_unanswered += 1
            self._abort("ping was not answered")
        else:
            self.heard, self.pinged = False, True
            self._write(PING)
            self._set_deadline(self.factory.options.ping_interval)

    # SessionWire

    def send(self, message: bytes) -> None:
        """Send one text message."""
        self._write(text_frame(message))

    def close(self, code: int, reason: str) -> None:
        """Close with any code; Autobahn's own `sendClose` knows only some."""
        if self.state != WebSocketProtocol.STATE_OPEN:
            return
        self.sendCloseFrame(code, reason.encode()[:123])
        self._set_deadline(self.factory.options.close_timeout)

    def subscribe(self, joined: frozenset[Topic], left: frozenset[Topic]) -> None:
        """Change what the client hears."""
        factory, outlet = self.factory, self.outlet
        if outlet is None:
            return
        if self.state == WebSocketProtocol.STATE_OPEN:
            factory.fanout.subscribe(factory.lane, outlet, joined, left)
        else:
            factory.fanout.forget(factory.lane, outlet, left)

    def ask(self, identity: Identity, topics: frozenset[Topic]) -> None:
        """Ask the application about topics."""
        oracle = self.factory.oracle
        if oracle is None:
            self._answered(frozenset())
        else:
            oracle.allowed(identity, topics).addErrback(_no_topics).addCallback(self._answered)

    # Autobahn's calls, in our order

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:  # noqa: ARG002
        """Send Autobahn's own frames in order with ours."""
        self._write(data)

    def dropConnection(self, abort: bool = False) -> None:  # noqa: ARG002
        """Close the connection gently.

        Autobahn as a server resets it, which proxies report as an error of ours. What waits is still sent; the deadline
        bounds that.
        """
        if self.state == WebSocketProtocol.STATE_CLOSED:
            return
        self.state = WebSocketProtocol.STATE_CLOSED
        if self.session is not None:
            self.session.lost()
        self._set_deadline(self.factory.options.close_timeout)
        self.transport.loseConnection()

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:  # noqa: N803
        """Refuse a handshake: the client is told why, the log only the kind, for the request may hold a token."""
        self.factory.counts.handshakes_refused += 1
        _log.info(
            "handshake_refused: {code} {kind}",
            code=code,
            kind=reason.split('"', maxsplit=1)[0].split(" : ", maxsplit=1)[0][:80],
        )
        body = f"{reason}\n".encode()
        head = [
            f"HTTP/1.1 {code} {_PHRASES.get(code, 'Bad Request')}",
            *(f"{k}: {v}" for k, v in responseHeaders or ()),
        ]
        head += ["Connection: close", "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
        self._write("\r\n".join([*head, "", ""]).encode() + body)
        self.dropConnection()

    @_guarded
    def overflowed(self) -> None:
        """More would have to wait than the outbox takes."""
        if self.session is None or self.outlet is None or self.state != WebSocketProtocol.STATE_OPEN:
            return
        self.factory.counts.slow_consumers += 1
        _log.warn("slow_consumer: closed with {waiting} bytes waiting", waiting=self.outlet.waiting, user=self._user())
        self.outlet.close_soon()
        self.session.slow()

    @_guarded
    def expired(self) -> None:
        """The identity's time is over."""
        self.expiry = 0
        if self.session is not None:
            self.session.expired()

    @_guarded
    def _judged(self, identity: Identity | None, shown: Credential) -> None:
        if identity is None:
            self._not_let_in("unknown credential")
        elif self.session is not None:
            self._set_deadline(self.factory.options.ping_interval)
            if identity.expires is not None:
                left = identity.expires - self.factory.now()
                self.expiry = self.factory.expiries.set(_Expiry(self), max(left, 0.0))
            self.session.authenticated(identity, csrf=shown.csrf if shown.kind is Kind.SESSION else False)

    def _failed(self, failure: Failure) -> None:
        if failure.check(NotNow):
            _log.warn("authentication_unavailable: {reason}", reason=failure.getErrorMessage())
            if self.session is not None:
                self.session.unavailable()
            return
        if not failure.check(Refused):
            _log.failure("authentication_failed", failure)
        self._not_let_in(failure.getErrorMessage() if failure.check(Refused) else "internal error")

    def _not_let_in(self, reason: str) -> None:
        self.factory.counts.auth_failures += 1
        _log.info("authentication_refused: {reason}", reason=reason)
        if self.session is not None:
            self.session.refused()

    @_guarded
    def _answered(self, allowed: frozenset[Topic]) -> None:
        if self.session is not None:
            self.session.answered(allowed)

    def _write(self, data: bytes) -> None:
        outlet = self.outlet
        if outlet is not None:
            self.factory.fanout.settle(outlet)
            outlet.write(data)

    def _abort(self, reason: str) -> None:
        _log.info("connection_dropped: {reason}", reason=reason, user=self._user())
        self.transport.abortConnection()

    def _set_deadline(self, seconds: float) -> None:
        deadlines = self.factory.deadlines
        deadlines.clear(self, self.mark)
        self.mark = deadlines.set(self, seconds)

    def _user(self) -> int | str | None:
        return self.session.identity.user if self.session is not None and self.session.identity is not None else None

    def _address(self, headers: dict[str, str]) -> str:
        """The client's address behind those that the proxies in front have named."""
        forwarded = headers.get("x-forwarded-for", "")
        peer = str(getattr(self.transport.getPeer(), "host", ""))
        return f"{forwarded}, {peer}" if forwarded else peer


class _Expiry(msgspec.Struct, frozen=True):
    """The end of a connection's identity, as a deadline."""

    wire: EventsProtocol

    def __hash__(self) -> int:
        return id(self.wire)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Expiry) and other.wire is self.wire

    def due(self) -> None:
        """It has come."""
        self.wire.expired()


_PHRASES = {
    404: "Not Found",
    405: "Method Not Allowed",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


def _without_quotes(reason: str) -> str:
    """The part of Autobahn's reason before it quotes the request."""
    return reason.split('"', maxsplit=1)[0].split(" : ", maxsplit=1)[0][:80]


def _no_topics(failure: Failure) -> frozenset[Topic]:
    _log.failure("ask_failed", failure)
    return frozenset()


class EventsFactory(WebSocketServerFactory):  # type: ignore[misc]
    """Makes a wire for each connection.

    Args:
        options: What can be set.
        authenticator: Judges credentials.
        rules: Who may see what.
        oracle: Answers what the rules leave to the application; None where they leave nothing to it.
        fanout: What brings the events.
        lane: The fan-out's lane for this dialect.
        deadlines: The wheel for handshakes, pings and closes.
        expiries: The wheel for the ends of identities.
        now: Tells the time, in seconds since the epoch of Unix.
    """

    def __init__(
        self,
        *,
        options: WireOptions,
        authenticator: IAuthenticator,
        rules: AccessRules,
        oracle: IAccessOracle | None,
        fanout: FanOut,
        lane: Lane[Any],
        deadlines: Deadlines,
        expiries: Deadlines,
        now: Callable[[], float],
        reactor: Any,
    ) -> None:
        super().__init__(server="towerbus", reactor=reactor)
        self.options = options
        self.authenticator = authenticator
        self.rules = rules
        self.oracle = oracle
        self.fanout = fanout
        self.lane = lane
        self.deadlines = deadlines
        self.expiries = expiries
        self.now = now
        self.counts = WebSocketCounts()
        self.wires: set[EventsProtocol] = set()
        self.dialect = tower.TowerDialect()
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
            allowedOrigins=list(options.origins) or ["*"],
            allowNullOrigin=not options.origins,
            serveFlashSocketPolicy=False,
        )
        self.protocol = type("EventsWire", (EventsProtocol,), settings_of(self))
