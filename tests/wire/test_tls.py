"""Over TLS nothing is sent eagerly: everything goes through the transport, in the same order and with the same bounds."""

import pytest
import pytest_twisted
import trustme
from support.wires import Server, until
from twisted.internet import reactor, ssl, task
from twisted.internet.endpoints import serverFromString, wrapClientTLS


@pytest.fixture
def authority():
    return trustme.CA()


def secured(authority, tmp_path, server):
    """The server's endpoint with a certificate, and clients that check it."""
    issued = authority.issue_cert("localhost")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    issued.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    root = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(authority.cert_pem.bytes())])
    server.wrap = lambda endpoint: wrapClientTLS(ssl.optionsForClientTLS("localhost", trustRoot=root), endpoint)
    return serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}")


@pytest_twisted.ensureDeferred
async def test_unread_clients_get_every_byte_once_they_read_again(authority, tmp_path):
    server = Server(outbox=64 * 1024 * 1024)
    await server.start(secured(authority, tmp_path, server))
    stuck, steady = await server.subscribed(), await server.subscribed()
    stuck.transport.pauseProducing()
    sent, waited = [], 0
    for number in range(400):
        sent.append(b'{"n":%d,"x":"%s"}' % (number, b"x" * 30_000))
        await server.emit(sent[-1])
        await task.deferLater(reactor, 0, lambda: None)
        waited = max(waited, *(wire.outlet.waiting for wire in server.factory.wires))
    assert waited > 1024 * 1024
    await steady.until(len(sent))
    assert steady.messages == sent
    stuck.transport.resumeProducing()
    await stuck.until(len(sent))
    assert stuck.messages == sent
    stuck.say({"groups": {}})
    await stuck.until(len(sent) + 1)
    await until(lambda: all(wire.outlet.waiting == 0 for wire in server.factory.wires))
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_slow_consumer_is_closed(authority, tmp_path):
    server = Server(outbox=256 * 1024)
    await server.start(secured(authority, tmp_path, server))
    slow, other = await server.subscribed(), await server.subscribed()
    slow.transport.pauseProducing()
    sent = [b'{"n":%d,"x":"%s"}' % (number, b"x" * 30_000) for number in range(400)]
    for payload in sent:
        await server.emit(payload)
        await task.deferLater(reactor, 0, lambda: None)
    await other.until(len(sent))
    assert other.messages == sent
    slow.transport.resumeProducing()
    assert await slow.closed() == 1013
    assert slow.messages == sent[: len(slow.messages)]
    await server.stop()
