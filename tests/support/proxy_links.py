"""The connections of `support.proxy`: one of a client, one to the server, and a flow in each direction between them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from twisted.internet import error
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

TO_SERVER, TO_CLIENT = "to_server", "to_client"

HOLDS = 64 * 1024
"""Bytes that may wait in one direction of one connection, beside the transport's own 64 KiB, before it is read no more."""


@dataclass
class Faults:
    """What is wrong with one direction."""

    hole: bool = False
    delay: float = 0.0
    cut_after: int | None = None


class Link:
    """A connection of a client and the one to the server that belongs to it."""

    def __init__(self, proxy, host, port):
        self.proxy, self._target = proxy, (host, port)
        self.client, self.server = _Side(self), _Side(self)
        self.to_server = _Flow(self, TO_SERVER, self.client, self.server)
        self.to_client = _Flow(self, TO_CLIENT, self.server, self.client)
        self.client.flow, self.server.flow = self.to_server, self.to_client
        self.connecting = None

    def made(self, side):
        if side is self.server:
            self.connecting = None
            if self.client.lost:
                self.server.transport.abortConnection()
                return
            for flow in (self.to_server, self.to_client):
                flow.sink.transport.registerProducer(flow, True)
            self.turn()
            return
        self.proxy.made(self)
        side.transport.pauseProducing()
        self.connecting = connectProtocol(TCP4ClientEndpoint(self.proxy.reactor, *self._target), self.server)
        self.connecting.addErrback(self._unreachable)

    def _unreachable(self, reason):
        reason.trap(error.ConnectError, error.ConnectingCancelledError)
        self.connecting, self.server.lost = None, True
        if self.client.lost:
            self.proxy.gone(self)
        self.client.transport.abortConnection()

    def lost(self, side, reason):
        side.flow.ended(clean=bool(reason.check(error.ConnectionDone)))
        if self.connecting is not None:
            self.connecting.cancel()
        elif self.client.lost and self.server.lost:
            self.to_server.clear()
            self.to_client.clear()
            self.proxy.gone(self)

    def turn(self):
        if self.server.transport is not None:
            self.to_server.turn()
            self.to_client.turn()

    def flush(self):
        self.to_server.flush()
        self.to_client.flush()

    def cut(self):
        for side in (self.client, self.server):
            if side.transport is not None:
                side.transport.abortConnection()

    def hang_up(self):
        for side in (self.client, self.server):
            side.close(clean=True)


class _Side(Protocol):
    """One of the two connections."""

    flow = None

    def __init__(self, link):
        self.link, self.lost = link, False

    def connectionMade(self):
        self.link.made(self)

    def dataReceived(self, data):
        self.flow.received(data)

    def connectionLost(self, reason):
        self.lost = True
        self.link.lost(self, reason)

    def close(self, *, clean):
        if self.transport is None:
            return
        if clean:
            self.transport.unregisterProducer()  # or the transport would wait for it
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()


@implementer(IPushProducer)
class _Flow:
    """One direction of one connection: what one side sends to the other.

    It is a push producer of the side that it sends to: that is how the one side's slowness reaches the other.
    """

    def __init__(self, link, direction, source, sink):
        self.link, self.direction, self.source, self.sink = link, direction, source, sink
        self.proxy, self.faults = link.proxy, link.proxy.faults[direction]
        self.waiting, self.size, self.calls = deque(), 0, deque()
        self.full = self.done = False

    def received(self, data):
        if self.faults.delay or self.waiting:
            self.size += len(data)
            self._wait(lambda: self._pass(data), len(data))
        else:
            self._pass(data)

    def ended(self, *, clean):
        """The source has ended; say so to the sink, in its turn."""
        if self.faults.hole or self.waiting:
            self._wait(lambda: self.sink.close(clean=clean), 0)
        else:
            self.sink.close(clean=clean)

    def _wait(self, step, size):
        self.waiting.append((step, size))
        self.calls.append(self.proxy.reactor.callLater(self.faults.delay, self._due))
        self.turn()

    def _due(self):
        while self.calls and not self.calls[0].active():
            self.calls.popleft()
        if not self.faults.hole:
            self._next()

    def _next(self):
        step, size = self.waiting.popleft()
        self.size -= size
        step()
        self.turn()

    def flush(self):
        """Pass on what waits."""
        self._cancel()
        while self.waiting:
            self._next()

    def clear(self):
        """Forget what waits."""
        self._cancel()
        self.waiting.clear()

    def _cancel(self):
        while self.calls:
            call = self.calls.popleft()
            if call.active():
                call.cancel()

    def _pass(self, data):
        if self.done:
            return
        limit = self.faults.cut_after
        if limit is None or len(data) < limit:
            self._write(data)
            if limit is not None:
                self.faults.cut_after -= len(data)
            return
        self.faults.cut_after, self.done = None, True
        self._write(data[:limit])
        self.turn()
        self.sink.transport.unregisterProducer()
        self.sink.transport.registerProducer(_CutWhenWritten(self.link), False)

    def _write(self, data):
        self.proxy.passed[self.direction] += len(data)
        self.sink.transport.write(data)

    def turn(self):
        """Read from the source, or do not: the kernel keeps what comes into a hole."""
        if self.full or self.done or self.faults.hole or self.size >= HOLDS:
            self.source.transport.pauseProducing()
        else:
            self.source.transport.resumeProducing()

    def pauseProducing(self):
        self.full = True
        self.turn()

    def resumeProducing(self):
        self.full = False
        self.turn()

    def stopProducing(self):
        """The sink is gone, which its side reports."""


class _CutWhenWritten:
    """A pull producer: a transport asks it once when it is registered, and again when it has written everything."""

    def __init__(self, link):
        self.link, self.asked = link, 0

    def resumeProducing(self):
        self.asked += 1
        if self.asked == 2:
            self.link.cut()

    def stopProducing(self):
        """The connection is gone already."""
