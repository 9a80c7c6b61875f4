"""The HTTP listener on a real port, and raw clients of it: every byte can be chosen, and reading can be paused."""

from __future__ import annotations

import json

from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from zope.interface import implementer
from zope.interface.verify import verifyObject

from towerbus.access import Grants, Identity
from towerbus.auth.interface import IAuthenticator
from towerbus.intake import http
from towerbus.intake.interface import IIntake

GOOD = b'{"group":"jobs","type":"status_changed","payload":{ "n" :1}}'


@implementer(IIntake)
class Intake:
    """Keeps what it gets, and answers as it is told."""

    def __init__(self):
        self.events, self.answer = [], lambda: succeed(None)

    def emit(self, events):
        self.events.extend(events)
        return self.answer()


@implementer(IAuthenticator)
class Producers:
    """Lets everybody emit whose token is `good`; others wait for what is told them, if anything is."""

    def __init__(self):
        self.later = {}

    def authenticate(self, credential):
        if credential.secret == "good":
            return Identity(1, grants=Grants(emit=("*",)))
        return self.later.get(credential.secret)


@implementer(IHalfCloseableProtocol)
class Raw(Protocol):
    """Sends what it is told, and keeps what comes. It never ends the connection by itself.

    Attributes:
        data: What came and was not looked at.
        ended: Whether the server said that nothing more will come.
        lost: Why the connection is gone, where it is.
    """

    def __init__(self):
        self.data, self.ended, self.lost = b"", False, None

    def dataReceived(self, data):
        self.data += data

    def readConnectionLost(self):
        self.ended = True

    def writeConnectionLost(self):
        pass

    def connectionLost(self, reason):
        self.ended, self.lost = True, reason

    def head(self, *headers, token="good", method="POST", path="/emit"):
        lines = [f"{method} {path}?token={token} HTTP/1.1", "Host: x", *headers, "", ""]
        self.transport.write("\r\n".join(lines).encode())

    def post(self, body, *headers, **given):
        if not any(header.startswith(("Content-Length", "Transfer-Encoding")) for header in headers):
            headers = (*headers, f"Content-Length: {len(body)}")
        self.head(*headers, **given)
        self.transport.write(body)

    async def answer(self):
        """Status, body and head of the next answer."""
        await until(lambda: self._whole() or self.ended)
        assert self._whole(), (self.data, self.lost)
        head, _, rest = self.data.partition(b"\r\n\r\n")
        size = self._size(head)
        body, self.data = rest[:size], rest[size:]
        return int(head.split()[1]), json.loads(body), head.decode()

    def _whole(self):
        head, blank, rest = self.data.partition(b"\r\n\r\n")
        return blank and len(rest) >= self._size(head)

    @staticmethod
    def _size(head):
        return int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])


class Listener:
    """The HTTP listener, with clients.

    Attributes:
        connections: The server's side of all connections that there are.
        emit: The resource.
    """

    async def start(self, *, clock=reactor, wrap=lambda endpoint: endpoint, endpoint=None, **options):
        self.intake, self.producers, self.clients, self.connections = Intake(), Producers(), [], []
        assert verifyObject(IIntake, self.intake)
        assert verifyObject(IAuthenticator, self.producers)
        self.site = http.site(self.intake, self.producers, clock, **options)
        self.emit = self.site.resource.children[b"emit"]
        self._wrap = wrap
        build = self.site.buildProtocol

        def built(address):
            connection = build(address)
            lost = connection.connectionLost

            def gone(reason):
                self.connections.remove(connection)
                lost(reason)

            connection.connectionLost = gone
            self.connections.append(connection)
            return connection

        self.site.buildProtocol = built
        endpoint = endpoint or TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.port = await endpoint.listen(self.site)
        return self

    async def client(self):
        client = Raw()
        endpoint = self._wrap(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port))
        self.clients.append(await connectProtocol(endpoint, client))
        return client

    async def stop(self):
        """Everybody goes away; nothing is left behind."""
        for client in self.clients:
            client.transport.abortConnection()
        await until(lambda: all(client.lost for client in self.clients) and not self.connections)
        await self.port.stopListening()
        assert self.emit._room.taken == 0
        assert self.emit._under_way == 0


def chunks(size, count):
    """The body of a request in chunks, with its end."""
    return chunk(size) * count + b"0\r\n\r\n"


def chunk(size):
    return f"{size:x}\r\n".encode() + b" " * size + b"\r\n"
