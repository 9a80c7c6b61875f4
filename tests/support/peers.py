"""Peers that are no brokers: they accept connections and say nothing, or the wrong thing."""

from contextlib import asynccontextmanager

from support.wires import until
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol


class Peer(Factory):
    """Listens on 127.0.0.1.

    Attributes:
        port: Where.
        connections: Those that are open.
        received: All that came.
    """

    noisy = False

    def __init__(self, says=b""):
        self.says, self.connections, self.received = says, set(), b""
        self._listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port = self._listening.getHost().port

    def buildProtocol(self, address):
        return _Connection(self)

    async def stop(self):
        await self._listening.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()
        await until(lambda: not self.connections)


class _Connection(Protocol):
    def __init__(self, peer):
        self.peer = peer

    def connectionMade(self):
        self.peer.connections.add(self)
        if self.peer.says:
            self.transport.write(self.peer.says)

    def dataReceived(self, data):
        self.peer.received += data

    def connectionLost(self, reason):
        self.peer.connections.discard(self)


@asynccontextmanager
async def peer(says=b""):
    """One that is stopped at the end."""
    made = Peer(says)
    try:
        yield made
    finally:
        await made.stop()
