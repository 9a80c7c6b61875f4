"""The client that `towerbus watch` uses: subscribes, hands messages on, and comes back when it is cut off."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater

from towerbus.errors import TowerbusError
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
    """Watches topics until told to stop.

    Args:
        reactor: The reactor.
        url: The WebSocket's URL.
        token: Sent as a bearer token; empty where the URL has one.
        groups: What to subscribe to: types by group.
        on_event: Gets each event's bytes.
        on_notice: Gets what a person should know: refusals, a lost connection.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        token: str,
        groups: Mapping[str, Sequence[str]],
        on_event: Callable[[bytes], None],
        on_notice: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._factory = WebSocketClientFactory(url, headers={"Authorization": f"Bearer {token}"} if token else None)
        self._factory.noisy = False
        self._factory.setProtocolOptions(autoPingInterval=PING_EVERY, autoPingTimeout=PING_EVERY)
        self._factory.protocol = type("Watching", (_Watching,), {"watcher": self})
        self._endpoint = _endpoint(reactor, url)
        self.groups = groups
        self.on_event = on_event
        self.on_notice = on_notice
        self.ended: Deferred[str] | None = None
        self.pause = FIRST_PAUSE
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
                pause = self.pause * random.uniform(0.5, 1)  # noqa: S311 - jitter
                self.on_notice(f"{why}; trying again in {pause:.1f} s")
                await deferLater(self._reactor, pause, lambda: None)
                self.pause = min(self.pause * 2, LONGEST_PAUSE)

    async def _watched(self) -> str:
        """Watch on one connection; why it ended."""
        ended: Deferred[str] = Deferred()
        self.ended = ended
        try:
            self._protocol = await self._endpoint.connect(self._factory)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
            return f"can't connect: {error}"
        return f"connection lost: {await ended}"

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped = True
        if self._protocol is not None:
            self._protocol.sendClose()


class _Watching(WebSocketClientProtocol):  # type: ignore[misc]
    """One connection of a watcher."""

    watcher: Watcher
    refused = False
    log = Silent()

    def onOpen(self) -> None:
        self.sendMessage(json.dumps({"groups": self.watcher.groups}).encode())

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002, N803 - Autobahn's name
        try:
            message = json.loads(payload)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self.watcher.on_notice(f"not a message of towerbus's: {payload[:60]!r}")
        elif message == {"close": True}:
            self.refused = True
        elif message.keys() == {"error"}:
            self.watcher.on_notice(str(message["error"]))
        elif message.keys() == {"groups_current", "groups_left", "groups_joined"}:
            self.watcher.pause = FIRST_PAUSE
            self.watcher.on_notice("watching " + (" ".join(message["groups_current"]) or "nothing"))
        elif message.keys() != {"accept", "user"}:
            self.watcher.on_event(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: ARG002, N803 - Autobahn's name
        ended, self.watcher.ended = self.watcher.ended, None
        if ended is None:
            return
        for_good = _FOR_GOOD.search(reason or "")
        if self.refused:
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
