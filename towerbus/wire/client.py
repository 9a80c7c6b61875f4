"""The client that `towerbus watch` uses: subscribes, hands messages on, and comes back when it is cut off."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater

from towerbus.dialects import tower, v1
from towerbus.dialects.watching import Watch
from towerbus.errors import TowerbusError
from towerbus.urls import shown
from towerbus.wire.insides import Silent

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
PING_EVERY = 20.0
"""Seconds between pings: a server that has gone without a word would else never be missed."""
_FOR_GOOD = re.compile(r"upgrade failed \[(4(?!08|29)\d\d)\]")
"""Autobahn's word for an answer that another try would get as well."""


class NotLetInError(TowerbusError):
    """The server does not know the token, or has no WebSocket there."""


class Watcher:
    """Watches until told to stop; comes back where it was cut off.

    Args:
        reactor: The reactor.
        url: The WebSocket's URL.
        token: Sent as a bearer token; empty where the URL has one.
        watch: What is watched, and who is told of events.
        notice: Told of lost connections.
    """

    def __init__(self, reactor: Any, url: str, token: str, watch: Watch, notice: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._factory = WebSocketClientFactory(
            url,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            protocols=[v1.NAME, tower.NAME],
        )
        self._factory.noisy = False
        self._factory.setProtocolOptions(autoPingInterval=PING_EVERY, autoPingTimeout=PING_EVERY)
        self._factory.protocol = type("Watching", (_Watching,), {"watcher": self})
        self._endpoint = _endpoint(reactor, url)
        self._shown = shown(url)
        self._notice = notice
        self.watch = watch
        self.ended: Deferred[str] | None = None
        self._pause = FIRST_PAUSE
        self._stopped = False
        self._protocol: Any = None

    async def run(self) -> None:
        """Watch until `stop` is called.

        Raises:
            NotLetInError: The server refused the token, or has no WebSocket there.
        """
        while not self._stopped:
            why = await self._watched()
            if not self._stopped:
                pause = self._next_pause()
                self._notice(f"{why}; trying again in {pause:.1f} s")
                await deferLater(self._reactor, pause, lambda: None)

    def _next_pause(self) -> float:
        """Seconds until it tries again: as many as the server asked for, or more from time to time."""
        if self.watch.welcome:
            self._pause = FIRST_PAUSE
        after, self.watch.after, self.watch.welcome = self.watch.after, None, False
        pause, self._pause = self._pause * random.uniform(0.5, 1), min(self._pause * 2, LONGEST_PAUSE)  # noqa: S311 - jitter
        return pause if after is None else min(max(after, 0.0), LONGEST_PAUSE)

    async def _watched(self) -> str:
        """Watch on one connection; why it ended."""
        ended: Deferred[str] = Deferred()
        self.ended = ended
        try:
            self._protocol = await self._endpoint.connect(self._factory)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
            return f"can't connect to {self._shown}: {str(error).rstrip('.')}"
        return f"connection lost: {await ended}"

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped = True
        if self._protocol is not None:
            self._protocol.sendClose()


class _Watching(WebSocketClientProtocol):  # type: ignore[misc]
    """One connection of a watcher."""

    watcher: Watcher
    log = Silent()

    def onOpen(self) -> None:
        self.sendMessage(self.watcher.watch.opening(self.websocket_protocol_in_use))

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002, N803 - Autobahn's name
        self.watcher.watch.heard(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002, N803 - Autobahn's name
        ended, self.watcher.ended = self.watcher.ended, None
        if ended is None:
            return
        for_good = _FOR_GOOD.search(reason or "")
        if self.watcher.watch.refused:
            ended.errback(NotLetInError("not authenticated: the token is missing, wrong or expired"))
        elif for_good:
            ended.errback(NotLetInError(f"HTTP {for_good[1]} instead of a WebSocket: is the URL right?"))
        else:
            ended.callback(reason or f"close code {code}")


def _endpoint(reactor: Any, url: str) -> Any:
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    endpoint = HostnameEndpoint(reactor, parts.hostname or "", parts.port or (443 if secure else 80))
    return wrapClientTLS(optionsForClientTLS(parts.hostname or ""), endpoint) if secure else endpoint
