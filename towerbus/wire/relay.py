"""The web node's side of AWX's relay: one Autobahn connection per relay. What is said stands in `bridge/awx.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred

PING_EVERY = 20.0
"""Seconds between pings; a relay that does not answer one for as long is dropped."""
HANDSHAKE = 10.0
MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes in a message: an event of AWX's is text in JSON in JSON, so that each of its bytes may take several."""


class RelayProtocol(WebSocketServerProtocol):  # type: ignore[misc]
    """One relay."""

    factory: RelayFactory

    def onConnect(self, request: Any) -> None:
        """Judge the handshake."""
        if request.path != self.factory.path:
            raise ConnectionDeny(404, f"no such path; relays are awaited at {self.factory.path}")
        refusal = self.factory.refusal(request.headers.get("secret"), self.peer)
        if refusal:
            raise ConnectionDeny(403, refusal)

    def onOpen(self) -> None:
        """It is in."""
        self.factory.relays.add(self)
        self.factory.opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002, N803 - Autobahn's name
        """It has sent something."""
        self.factory.received(self, payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002, N803
        """It is gone."""
        if self in self.factory.relays:
            self.factory.relays.discard(self)
            self.factory.closed(self, str(reason or f"close code {code}"))
        if not self.factory.relays and self.factory.emptied is not None:
            emptied, self.factory.emptied = self.factory.emptied, None
            emptied.callback(None)

    def say(self, message: bytes) -> None:
        """Send a message, unless the connection is about to end."""
        if self.state == WebSocketProtocol.STATE_OPEN:
            self.sendMessage(message)


class RelayFactory(WebSocketServerFactory):  # type: ignore[misc]
    """Makes a protocol for each relay that dials.

    Args:
        reactor: The reactor.
        path: The one path that there is.
        refusal: Judges the header `secret` of a peer; returns why it is not let in, or an empty text.
        opened: Told of a relay that is in.
        received: Told of what it has sent.
        closed: Told of its end, with the reason.

    Attributes:
        relays: Those that are in.
    """

    protocol = RelayProtocol
    noisy = False

    def __init__(
        self,
        reactor: Any,
        path: str,
        refusal: Callable[[str | None, str], str],
        opened: Callable[[RelayProtocol], None],
        received: Callable[[RelayProtocol, bytes], None],
        closed: Callable[[RelayProtocol, str], None],
    ) -> None:
        super().__init__(server="towerbus", reactor=reactor)
        self.path = path
        self.refusal, self.opened, self.received, self.closed = refusal, opened, received, closed
        self.relays: set[RelayProtocol] = set()
        self.emptied: Deferred[None] | None = None
        self.setProtocolOptions(
            webStatus=False,
            maxFramePayloadSize=MAX_MESSAGE,
            maxMessagePayloadSize=MAX_MESSAGE,
            openHandshakeTimeout=HANDSHAKE,
            closeHandshakeTimeout=1,
            autoPingInterval=PING_EVERY,
            autoPingTimeout=PING_EVERY,
        )

    def say(self, message: bytes) -> None:
        """Send a message to all relays."""
        for relay in self.relays:
            relay.say(message)

    def end(self) -> Deferred[None]:
        """Close all connections.

        Returns:
            A Deferred that fires when they are gone: a relay gets a second to answer.
        """
        emptied: Deferred[None] = Deferred()
        if not self.relays:
            emptied.callback(None)
            return emptied
        self.emptied = emptied
        for relay in tuple(self.relays):
            relay.sendClose(1000)
        return emptied
