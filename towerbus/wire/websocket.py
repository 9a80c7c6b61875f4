"""The WebSocket adapter: carries a session over one Autobahn connection.

A thin shell. What is said stands in the dialect, what follows from it in the session; here are the handshake, the
credentials' way to the authenticator, the deadlines, and the closing.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.access import Identity
from towerbus.auth.credentials import credential
from towerbus.auth.interface import Credential, Kind, NotNow, Refused, Turnover
from towerbus.dialects import tower
from towerbus.session import Session
from towerbus.wire.carrier import Carrier, guarded
from towerbus.wire.frames import PING, text_frame
from towerbus.wire.outlet import Outlet

_log = Logger()


class EventsProtocol(Carrier):
    """One connection: the wire of one session."""

    heard = True
    pinged = False
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

    def onConnect(self, request: Any) -> str | tuple[str | None, dict[str, str]] | None:
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
        # Of those that are spoken here, the one that the client names first.
        chosen = next((name for name in request.protocols if name in self.factory.spoken), None)
        if chosen not in {None, tower.NAME}:
            self.spoken = self.factory.spoken[chosen]
        taken = self.take_offer(compression=self.spoken.deflated is not None)
        return chosen if taken is None else (chosen, {"Sec-WebSocket-Extensions": taken})

    @guarded
    def onOpen(self) -> None:
        """Begin the session, and authenticate."""
        factory = self.factory
        factory.counts.clients += 1
        self.session = Session(self, self.spoken.dialect, factory.rules)
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

    @guarded
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
            note = self.session.keepalive(self.factory.fanout.position)
            self._write(PING if note is None else PING + text_frame(note))
            self._set_deadline(self.factory.options.ping_interval)

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
            kind=_without_quotes(reason),
        )
        body = f"{reason}\n".encode()
        head = [
            f"HTTP/1.1 {code} {_PHRASES.get(code, 'Bad Request')}",
            *(f"{k}: {v}" for k, v in responseHeaders or ()),
        ]
        head += ["Connection: close", "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
        self._write("\r\n".join([*head, "", ""]).encode() + body)
        self.dropConnection()

    @guarded
    def expired(self) -> None:
        """The identity's time is over."""
        self.expiry = 0
        if self.session is not None:
            self.session.expired()

    @guarded
    def turn_over(self, turnover: Turnover) -> None:
        """What is known of identities has changed: follow it, or end."""
        identity = None if self.session is None else self.session.identity
        if self.session is None or identity is None:
            return
        now = turnover.now(identity)
        if now is None:
            _log.info("identity_withdrawn: the client is ended", user=identity.user)
            self.session.expired()
        elif now is not identity:
            self._set_expiry(now)
            self.session.become(now)

    def _set_expiry(self, identity: Identity) -> None:
        if self.expiry:
            self.factory.expiries.clear(_Expiry(self), self.expiry)
            self.expiry = 0
        if identity.expires is not None:
            left = identity.expires - self.factory.now()
            self.expiry = self.factory.expiries.set(_Expiry(self), max(left, 0.0))

    @guarded
    def _judged(self, identity: Identity | None, shown: Credential) -> None:
        if identity is None:
            self._not_let_in("unknown credential")
        elif self.session is not None:
            self._set_deadline(self.factory.options.ping_interval)
            self._set_expiry(identity)
            self.session.authenticated(
                identity,
                csrf=shown.csrf if shown.kind is Kind.SESSION else False,
                stale=self.factory.stale_since,
            )

    def _failed(self, failure: Failure) -> None:
        if failure.check(NotNow):
            _log.warn("authentication_unavailable: {reason}", reason=failure.getErrorMessage())
            if self.session is not None:
                self.session.unavailable("authentication is not available now")
            return
        if not failure.check(Refused):
            _log.failure("authentication_failed", failure)
        self._not_let_in(failure.getErrorMessage() if failure.check(Refused) else "internal error")

    def _not_let_in(self, reason: str) -> None:
        self.factory.counts.auth_failures += 1
        _log.info("authentication_refused: {reason}", reason=reason)
        if self.session is not None:
            self.session.refused()

    def _abort(self, reason: str) -> None:
        _log.info("connection_dropped: {reason}", reason=reason, user=self._user())
        self.transport.abortConnection()

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
