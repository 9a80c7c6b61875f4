"""Writing past the transport's buffers: what is written arrives whole and in order, however slowly the peer reads."""

import hashlib

import pytest
import pytest_twisted
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from towerbus.transports import write_now

PIECE = 100_000


class Sink(Protocol):
    """Reads, and reads nothing while it is paused."""

    def __init__(self):
        self.digest, self.size, self.gone = hashlib.sha256(), 0, False

    def connectionMade(self):
        self.transport.pauseProducing()

    def dataReceived(self, data):
        self.digest.update(data)
        self.size += len(data)

    def connectionLost(self, reason):
        self.gone = True


@pytest.fixture
def pair():
    """A transport to write to, and whoever reads at its other end."""

    async def connected():
        sink = Sink()
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(lambda: sink)
        )
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port), Protocol())
        return client.transport, sink, listening

    transport, sink, listening = pytest_twisted.blockon(Deferred.fromCoroutine(connected()))
    yield transport, sink
    transport.abortConnection()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: sink.gone)))
    pytest_twisted.blockon(listening.stopListening())


@pytest_twisted.ensureDeferred
async def test_more_than_the_kernel_takes_arrives_in_order(pair):
    transport, sink = pair
    expected = hashlib.sha256()
    for number in range(100):
        data = number.to_bytes(4) * (PIECE // 4)
        expected.update(data)
        if number % 7 == 3:
            transport.write(data)
        else:
            write_now(transport, data)
        if number % 10 == 9:
            await deferLater(reactor, 0, lambda: None)
    assert transport.dataBuffer or transport._tempDataBuffer, "the kernel took all: nothing was shown"
    sink.transport.resumeProducing()
    transport.loseConnection()
    await until(lambda: sink.gone)
    assert sink.size == 100 * PIECE
    assert sink.digest.digest() == expected.digest()


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_gone_ends_the_transport_as_always(pair):
    transport, sink = pair
    sink.transport.abortConnection()
    await until(lambda: sink.gone)
    while transport.connected:
        write_now(transport, b"x" * PIECE)
        await deferLater(reactor, 0, lambda: None)
    write_now(transport, b"nobody is there")
