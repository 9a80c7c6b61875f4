"""The proxy that breaks things breaks just what it is told to, and is bounded."""

import random
import socket
import time

import pika
import pika.exceptions
import pytest
import pytest_twisted
from support.proxy import TO_CLIENT, TO_SERVER, Proxy
from support.wires import until
from twisted.internet import error, reactor, task
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

LONG = random.Random(7).randbytes(300_000)


class Peer(Protocol):
    """An end of a connection that keeps what it gets."""

    def __init__(self):
        self.data, self.reason = bytearray(), None

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.reason = reason

    def say(self, data):
        self.transport.write(data)

    @property
    def ended(self):
        """How: None, `"FIN"` or `"RST"`."""
        if self.reason is None:
            return None
        return "FIN" if self.reason.check(error.ConnectionDone) else "RST"


class Server:
    """A server, a proxy in front of it and their clients."""

    def __init__(self):
        self.peers, self.clients = [], []

    async def __aenter__(self):
        self.port = reactor.listenTCP(0, self._factory(), interface="127.0.0.1")
        self.proxy = Proxy(reactor, self.port.getHost().port)
        await self.proxy.start()
        return self

    async def __aexit__(self, *reason):
        await self.proxy.stop()
        assert self.proxy.open == 0
        await maybeDeferred(self.port.stopListening)
        for peer in (*self.peers, *self.clients):
            if not peer.ended:
                peer.transport.abortConnection()
        await until(lambda: all(peer.ended for peer in (*self.peers, *self.clients)))

    def _factory(self):
        def made():
            self.peers.append(Peer())
            return self.peers[-1]

        factory = Factory.forProtocol(made)
        factory.noisy = False
        return factory

    async def connect(self):
        """Both ends of a new connection, the client's and the server's."""
        count = len(self.peers)
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port), Peer())
        self.clients.append(client)
        await until(lambda: len(self.peers) > count)
        return client, self.peers[-1]


def quiet():
    """Time in which what must not happen would have happened."""
    return task.deferLater(reactor, 0.2, lambda: None)


@pytest_twisted.ensureDeferred
async def test_everything_passes_both_ways():
    async with Server() as server:
        client, peer = await server.connect()
        client.say(LONG)
        peer.say(LONG[::-1])
        await until(lambda: len(peer.data) == len(client.data) == len(LONG))
        assert (peer.data, client.data) == (LONG, LONG[::-1])
        await server.connect()
        assert (server.proxy.open, server.proxy.accepted) == (2, 2)
        assert server.proxy.passed == {TO_SERVER: len(LONG), TO_CLIENT: len(LONG)}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_an_end_is_passed_on_as_it_is(first, how):
    async with Server() as server:
        client, peer = await server.connect()
        ender, other = (client, peer) if first == "client" else (peer, client)
        ender.say(b"last")
        await until(lambda: other.data == b"last")
        ender.transport.loseConnection() if how == "FIN" else ender.transport.abortConnection()
        await until(lambda: other.ended)
        assert other.ended == how
        await until(lambda: server.proxy.open == 0)


@pytest_twisted.ensureDeferred
async def test_a_cut_resets_all_both_ways():
    async with Server() as server:
        pairs = [await server.connect() for _ in range(3)]
        server.proxy.cut()
        await until(lambda: all(end.ended for pair in pairs for end in pair))
        assert {end.ended for pair in pairs for end in pair} == {"RST"}
        await until(lambda: server.proxy.open == 0)
        client, peer = await server.connect()
        client.say(b"again")
        await until(lambda: peer.data == b"again")


@pytest_twisted.ensureDeferred
async def test_hanging_up_ends_all_in_order():
    async with Server() as server:
        client, peer = await server.connect()
        client.say(LONG)
        await until(lambda: server.proxy.passed[TO_SERVER] == len(LONG))
        server.proxy.hang_up()
        await until(lambda: client.ended and peer.ended)
        assert (client.ended, peer.ended, peer.data) == ("FIN", "FIN", LONG)


@pytest_twisted.ensureDeferred
async def test_hanging_up_waits_for_a_slow_reader():
    async with Server() as server:
        client, peer = await server.connect()
        client.transport.pauseProducing()
        await _stuck(Pump(peer.transport, 512 * 65536))
        passed = server.proxy.passed[TO_CLIENT]
        server.proxy.hang_up()
        client.transport.resumeProducing()
        await until(lambda: client.ended)
        assert (client.ended, len(client.data)) == ("FIN", passed)


@pytest_twisted.ensureDeferred
async def test_a_black_hole_keeps_the_connection_and_what_is_sent():
    async with Server() as server:
        client, peer = await server.connect()
        server.proxy.blackhole()
        client.say(b"from the client")
        peer.say(b"from the server")
        peer.transport.loseConnection()
        other, other_peer = await server.connect()
        other.say(b"on a new connection")
        await quiet()
        assert (client.data, peer.data, other_peer.data) == (b"", b"", b"")
        assert (client.ended, other.ended) == (None, None)
        await server.proxy.heal()
        await until(lambda: client.ended and other_peer.data)
        assert (client.data, client.ended) == (b"from the server", "FIN")
        assert other_peer.data == b"on a new connection"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("direction", "swallowed", "passed"), [(TO_SERVER, 0, 1), (TO_CLIENT, 1, 0)])
async def test_a_black_hole_in_one_direction(direction, swallowed, passed):
    async with Server() as server:
        ends = await server.connect()
        server.proxy.blackhole(direction)
        for end in ends:
            end.say(b"hello")
        await until(lambda: ends[1 - passed].data == b"hello")
        await quiet()
        assert ends[1 - swallowed].data == b""
        await server.proxy.heal()
        await until(lambda: ends[1 - swallowed].data == b"hello")


@implementer(IPushProducer)
class Pump:
    """Sends as much as the transport takes."""

    def __init__(self, transport, total):
        self.transport, self.total, self.sent, self.paused = transport, total, 0, False
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self):
        self.paused = False
        while not self.paused and self.sent < self.total:
            self.transport.write(LONG[:65536])
            self.sent += 65536

    def pauseProducing(self):
        self.paused = True

    def stopProducing(self):
        self.paused = True


async def _stuck(pump):
    """Wait until a pump has not been asked for more for a while."""
    before = None
    while before != pump.sent:
        before = pump.sent
        await quiet()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("stopped_by", ["the reader", "a hole", "a long delay"])
async def test_what_waits_is_bounded(stopped_by):
    total = 512 * 65536
    async with Server() as server:
        client, peer = await server.connect()
        if stopped_by == "the reader":
            client.transport.pauseProducing()
        elif stopped_by == "a hole":
            server.proxy.blackhole(TO_CLIENT)
        else:
            server.proxy.delay(1000, TO_CLIENT)
        pump = Pump(peer.transport, total)
        await _stuck(pump)
        assert pump.sent < total
        (link,) = server.proxy._links
        in_transport = len(link.client.transport.dataBuffer) + link.client.transport._tempDataLen
        assert in_transport + link.to_client.size <= 256 * 1024
        await server.proxy.heal()
        client.transport.resumeProducing()
        await until(lambda: len(client.data) == total)
        assert client.data == LONG[:65536] * 512


@pytest_twisted.ensureDeferred
async def test_refusing_leaves_the_connections_that_are_there():
    async with Server() as server:
        client, peer = await server.connect()
        port = server.proxy.port
        await server.proxy.refuse()
        with pytest.raises(error.ConnectionRefusedError):
            await server.connect()
        client.say(b"still")
        await until(lambda: peer.data == b"still")
        await server.proxy.heal()
        assert server.proxy.port == port
        await server.connect()


@pytest_twisted.ensureDeferred
async def test_what_is_delayed_comes_later_and_in_order():
    async with Server() as server:
        client, peer = await server.connect()
        server.proxy.delay(0.15)
        before = time.monotonic()
        client.say(b"ping")
        await until(lambda: peer.data)
        peer.say(b"pong")
        await until(lambda: client.data)
        assert time.monotonic() - before >= 0.3
        # Neither a shorter delay nor none lets what is later overtake.
        for number, seconds in enumerate((0.2, 0.05, 0, 0.1, 0)):
            server.proxy.delay(seconds)
            client.say(b" %d" % number)
            await task.deferLater(reactor, 0.01)
        client.transport.loseConnection()
        await until(lambda: peer.ended)
        assert (peer.data, peer.ended) == (b"ping 0 1 2 3 4", "FIN")


@pytest_twisted.ensureDeferred
async def test_healing_passes_on_what_is_delayed():
    async with Server() as server:
        client, peer = await server.connect()
        server.proxy.delay(1000)
        client.say(b"late")
        await until(lambda: next(iter(server.proxy._links)).to_server.size)
        await server.proxy.heal()
        await until(lambda: peer.data == b"late")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("count", [1, 2, 65536, 65537, 200_000, len(LONG)])
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_a_cut_comes_after_exactly_so_many_bytes(count, direction, seconds):
    async with Server() as server:
        client, peer = await server.connect()
        sender, receiver = (client, peer) if direction == TO_SERVER else (peer, client)
        sender.say(b"before")
        await until(lambda: receiver.data == b"before")
        server.proxy.delay(seconds)
        server.proxy.cut_after(count, direction)
        sender.say(LONG)
        sender.say(LONG)
        await until(lambda: client.ended and peer.ended)
        assert receiver.data == b"before" + LONG[:count]
        assert (client.ended, peer.ended) == ("RST", "RST")
        # Only once.
        client, peer = await server.connect()
        client.say(LONG)
        peer.say(LONG)
        await until(lambda: client.data == peer.data == LONG)


@pytest_twisted.ensureDeferred
async def test_where_nobody_listens_a_client_is_reset():
    async with Server() as server:
        await server.port.stopListening()
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", server.proxy.port), Peer())
        await until(lambda: client.ended)
        assert client.ended == "RST"
        assert server.proxy.open == 0


def test_in_a_thread_it_serves_a_test_that_blocks(blocking_proxy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = blocking_proxy(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as client, server.accept()[0] as peer:
            client.sendall(b"hello")
            assert peer.recv(5) == b"hello"
            assert (proxy.open, proxy.accepted, proxy.passed[TO_SERVER]) == (1, 1, 5)
            proxy.blackhole(TO_SERVER)
            client.sendall(b"hello")
            peer.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.recv(5)
            proxy.heal()
            peer.settimeout(10)
            assert peer.recv(5) == b"hello"
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", proxy.port), 10)
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_publish_that_is_cut_in_the_middle_of_its_frame_is_not_stored(broker, vhost, blocking_proxy):
    proxy = blocking_proxy(broker.port)
    through = vhost.replace(str(broker.port), str(proxy.port))
    connection = pika.BlockingConnection(pika.URLParameters(through))
    channel = connection.channel()
    channel.queue_declare("c", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "c", b"whole" * 1000)
    proxy.cut_after(2500, TO_SERVER)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        channel.basic_publish("", "c", b"cut" * 1000)
    with pika.BlockingConnection(pika.URLParameters(through)) as again:
        channel = again.channel()
        assert channel.basic_get("c", auto_ack=True)[2] == b"whole" * 1000
        assert channel.basic_get("c", auto_ack=True)[2] is None
    assert proxy.accepted == 2
