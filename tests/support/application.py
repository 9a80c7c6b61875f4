"""The application that towerbus asks, as a real HTTP server on 127.0.0.1."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

SILENCE = object()
"""For an answer that never comes."""


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict
    body: bytes


@dataclass
class App:
    """What the server is to answer, and what it was asked.

    Attributes:
        status: Of the next answers.
        answer: What they hold: bytes, what is written as JSON, `SILENCE`, a callable of the request that gives one of
            these, or an exception that ends the connection.
        headers: Of the next answers.
        asked: The requests that came.
        held: The requests whose answer is `SILENCE`.
        connections: How many were made.
    """

    status: int = 200
    answer: object = b"{}"
    headers: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    held: list = field(default_factory=list)
    connections: int = 0
    url: str = ""
    waits: list = field(default_factory=list)

    def asked_times(self, count):
        """A Deferred that fires when so many requests have come."""
        wait = Deferred()
        self.waits.append((count, wait))
        self.tell()
        return wait

    def tell(self):
        for count, wait in [wait for wait in self.waits if len(self.asked) >= wait[0]]:
            self.waits.remove((count, wait))
            wait.callback(None)

    def release(self, answer):
        """Answer the requests that are held."""
        for request in self.held:
            request.write(json.dumps(answer).encode())
            request.finish()
        self.held.clear()


class _Root(Resource):
    isLeaf = True

    def __init__(self, app):
        super().__init__()
        self.app = app

    def render(self, request):
        app = self.app
        headers = {
            name.decode().lower(): values[0].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        asked = Asked(request.method.decode(), request.uri.decode(), headers, request.content.read())
        app.asked.append(asked)
        request.setResponseCode(app.status)
        for name, value in app.headers.items():
            request.setHeader(name, value)
        answer = app.answer(asked) if callable(app.answer) else app.answer
        if answer is SILENCE:
            app.held.append(request)
            request.notifyFinish().addErrback(lambda _: app.held.remove(request))
            app.tell()
            return NOT_DONE_YET
        app.tell()
        if isinstance(answer, Exception):
            request.loseConnection()
            return NOT_DONE_YET
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


class _Counted(WrappingFactory):
    """Knows its connections, and when the last has gone."""

    noisy = False

    def __init__(self, wrapped, app):
        super().__init__(wrapped)
        self.app = app
        self.empty = None

    def registerProtocol(self, protocol):
        self.app.connections += 1
        super().registerProtocol(protocol)

    def unregisterProtocol(self, protocol):
        super().unregisterProtocol(protocol)
        if self.empty is not None and not self.protocols:
            self.empty.callback(None)

    async def ended(self, reactor):
        """End the connections."""
        if self.protocols:
            self.empty = Deferred()
            for protocol in list(self.protocols):
                protocol.transport.abortConnection()
            await self.empty
            await deferLater(reactor, 0)  # the protocol itself hears of its end after this factory


@asynccontextmanager
async def application(reactor, **given):
    """Serve until the end of the block."""
    app = App(**given)
    site = Site(_Root(app))
    site.noisy = False
    factory = _Counted(site, app)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    app.url = f"http://127.0.0.1:{port.getHost().port}/api/me/"
    app.factory = factory
    try:
        yield app
    finally:
        await port.stopListening()
        await factory.ended(reactor)
