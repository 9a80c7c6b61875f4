"""permessage-deflate over real connections: who gets what compressed, in what order, and what is refused."""

import json
import random
import threading

import pytest
import pytest_twisted
from support.wires import DEFLATE, Server, deflated, until
from twisted.internet.threads import deferToThread
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from towerbus.event import event
from towerbus.wire.deflate import Deflater

LONG = "again and again " * 40


async def started(**options):
    return await Server(deflater=Deflater(), **options).start()


def offering(more=""):
    return {"headers": [f"{DEFLATE}{more}"]}


V1 = "Sec-WebSocket-Protocol: towerbus.v1"


@pytest_twisted.ensureDeferred
async def test_only_who_offers_it_is_answered():
    server = await started()
    plain = await server.client()
    browser = await server.client(**offering("; client_max_window_bits"))
    assert "Extensions" not in plain.head
    assert f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover\r\n" in browser.head + "\r\n"
    assert [wire.deflates for wire in server.factory.wires].count(True) == 1
    await server.stop()


@pytest.mark.parametrize("offer", ["; server_max_window_bits=9", "; unknown", "; server_max_window_bits=99", ";;=;"])
@pytest_twisted.ensureDeferred
async def test_an_offer_that_is_declined_lets_the_client_in_all_the_same(offer):
    for server in (await started(), await Server().start()):
        client = await server.subscribed(**offering(offer))
        await server.emit(json.dumps({"text": LONG}).encode())
        await client.until(1)
        assert "Extensions" not in client.head
        assert client.compressed == 0
        await server.stop()


@pytest_twisted.ensureDeferred
async def test_without_the_option_it_is_not_offered():
    server = await Server().start()
    client = await server.client(**offering())
    assert "Extensions" not in client.head
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_an_event_is_compressed_once_for_all_in_a_dialect_and_plain_clients_get_it_plain():
    server = await started()
    calm = [await server.subscribed() for _ in range(3)]
    eager = [await server.subscribed(**offering()) for _ in range(5)]
    payload = json.dumps({"text": LONG}).encode()
    await server.emit(payload)
    for client in (*calm, *eager):
        await client.until(1)
    assert all(client.messages == [payload] for client in (*calm, *eager))
    assert [client.compressed for client in calm] == [0] * 3
    assert [client.compressed for client in eager] == [1] * 5
    assert server.deflater.taken == len(payload)
    assert server.deflater.made < len(payload) / 3
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_nobody_who_wants_it_costs_nothing():
    server = await started()
    client = await server.subscribed()
    await server.emit(json.dumps({"text": LONG}).encode())
    await client.until(1)
    assert server.deflater.taken == 0
    await server.stop()


@pytest.mark.parametrize("headers", [[], [V1]])
@pytest_twisted.ensureDeferred
async def test_mixed_clients_of_one_topic_get_everything_in_order(headers):
    """Small events and large ones, in bursts, with changes of the subscription, pings and acknowledgements between."""
    random.seed(5)
    server = await started(ping_interval=1)
    v1 = bool(headers)
    topics = {"jobs": ["status_changed"]}
    clients = []
    for number in range(6):
        more = [*headers, *([DEFLATE] if number % 2 else [])]
        client = await server.client(headers=more)
        client.say({"groups": topics, **({"id": number} if v1 else {})})
        await client.until(2)
        del client.messages[:2]
        clients.append(client)
    total = 0
    for _ in range(30):
        burst = random.randrange(1, 20)
        payloads = [
            json.dumps({"n": total + i, "text": LONG[: random.choice([0, 100, 300, 640])]}).encode()
            for i in range(burst)
        ]
        total += burst
        await server.log.emit([event("jobs", "status_changed", payload) for payload in payloads])
        for client in clients:
            if random.random() < 0.3:
                client.say({"groups": topics})
    await until(lambda: all(numbers(client)[-1:] == [total - 1] for client in clients))
    for number, client in enumerate(clients):
        assert numbers(client) == list(range(total))
        assert (client.compressed > 0) == bool(number % 2)
    server.factory.stale(1.0)
    server.factory.fresh()
    if v1:
        for client in clients:
            await until(lambda client=client: [m["stale"] for m in client.json if "stale" in m][-1:] == [False])
    await until(lambda: all(client.pings for client in clients))
    await server.stop()


def numbers(client):
    found = [message.get("data", message) for message in client.json]
    return [message["n"] for message in found if "n" in message]


@pytest_twisted.ensureDeferred
async def test_who_comes_back_gets_what_was_missed_compressed():
    server = await started()
    first = await server.client(headers=[V1])
    first.say({"groups": {"jobs": ["status_changed"]}})
    await first.until(2)
    position = first.json[1]["position"]
    for number in range(50):
        await server.emit(json.dumps({"n": number, "text": LONG}).encode())
    clients = [await server.client(headers=[V1, DEFLATE]) for _ in range(3)]
    clients.append(await server.client(headers=[V1]))
    for client in clients:
        client.say({"groups": {"jobs": ["status_changed"]}, "since": position})
    await until(lambda: all(len(numbers(client)) == 50 for client in clients))
    for client in clients:
        assert numbers(client) == list(range(50))
    assert [client.compressed for client in clients] == [50, 50, 50, 0]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_unread_clients_get_a_whole_stream_when_they_read_again():
    """More than the kernel takes waits for those who do not read; frames are cut anywhere, and each arrives whole."""
    server = await started(outbox=64 * 1024 * 1024)
    clients = [await server.subscribed(**(offering() if number % 2 else {})) for number in range(6)]
    for client in clients[:4]:
        client.transport.pauseProducing()
    random.seed(3)
    sent = []
    for number in range(200):
        # Hexadecimal digits: compressed they are half as long, so that megabytes remain.
        text = random.randbytes(90_000).hex() if number % 3 == 0 else "x" * random.randrange(600)
        sent.append(json.dumps({"n": number, "text": text}).encode())
        await server.emit(sent[-1])
    await until(lambda: all(len(client.messages) == len(sent) for client in clients[4:]))
    waiting = [wire.outlet.waiting for wire in server.factory.wires]
    assert sum(held > 0 for held in waiting) == 4
    for client in clients[:4]:
        client.transport.resumeProducing()
    await until(lambda: all(len(client.messages) == len(sent) for client in clients))
    assert all(client.messages == sent for client in clients)
    assert [client.compressed > 0 for client in clients] == [False, True] * 3
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_compressed_messages_of_clients_are_understood():
    server = await started()
    client = await server.client(**offering())
    wish = json.dumps({"groups": {"jobs": ["status_changed", "summary"]}}).encode()
    client.frame(1, deflated(wish), rsv=4)
    data = deflated(wish)
    client.frame(1, data[:7], fin=False, rsv=4)
    client.frame(9, b"between")
    client.frame(0, b"", fin=False)
    client.frame(0, data[7:])
    client.say(json.loads(wish))
    await client.until(4)
    assert [len(message["groups_joined"]) for message in client.json[1:]] == [2, 0, 0]
    (wire,) = server.factory.wires
    assert wire._perMessageCompress._inflater is None
    await server.stop()


def in_pieces(client, data):
    for at in range(0, len(data), 50):
        client.frame(0 if at else 1, data[at : at + 50], fin=at + 50 >= len(data), rsv=0 if at else 4)


BAD = {
    "a bomb": (lambda c: c.frame(1, deflated(b" " * 10_000_000), rsv=4), 1009),
    "one byte too many": (lambda c: c.frame(1, deflated(b" " * 65_537), rsv=4), 1009),
    "a bomb in pieces": (lambda c: in_pieces(c, deflated(b" " * 300_000)), 1009),
    "no deflated data": (lambda c: c.frame(1, b"\xff\xff\xff\xff", rsv=4), 1007),
    "half a message": (lambda c: c.frame(1, deflated(b'{"groups":{}}' * 20)[:-2], rsv=4), 1007),
    "nothing": (lambda c: c.frame(1, b"", rsv=4), 1007),
    "not UTF-8": (lambda c: c.frame(1, deflated(b"\xff\xfe"), rsv=4), 1007),
    "a compressed ping": (lambda c: c.frame(9, b"x", rsv=4), 1002),
    "a compressed close": (lambda c: c.frame(8, b"\x03\xe8", rsv=4), 1002),
    "a piece marked again": (lambda c: (c.frame(1, deflated(b"{}")[:1], fin=False, rsv=4), c.frame(0, b"", rsv=4)), 1002),
    "another reserved bit": (lambda c: c.frame(1, deflated(b"{}"), rsv=6), 1002),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
@pytest_twisted.ensureDeferred
async def test_what_is_wrong_closes_with_the_right_code_and_the_close_is_answered(kind):
    server = await started(close_timeout=300)
    client = await server.client(**offering())
    await client.until(1)
    say, code = BAD[kind]
    say(client)
    # Before the deadline of the close: whatever comes behind what was wrong is read, up to the client's close frame.
    assert await client.closed() == code
    assert client.json == [{"accept": True, "user": 7}]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_the_bound_is_on_what_is_inflated_and_what_is_just_as_long_is_taken():
    server = await started(max_frame=1000)
    client = await server.client(**offering())
    client.frame(1, deflated(b'{"groups":{}}'.ljust(1000)), rsv=4)
    await client.until(2)
    assert "groups_current" in client.json[1]
    await server.stop()


@pytest.mark.parametrize("deflater", [None, "there"])
@pytest_twisted.ensureDeferred
async def test_who_has_not_agreed_to_it_may_not_compress(deflater):
    server = await Server(deflater=Deflater() if deflater else None).start()
    client = await server.client()
    client.frame(1, deflated(b"{}"), rsv=4)
    assert await client.closed() == 1002
    await server.stop()


@pytest.mark.parametrize("bits", [15, 12])
@pytest_twisted.ensureDeferred
async def test_another_implementation_as_a_client(bits):
    """The package websockets, by itself and with a wish; it compresses what it sends."""
    server = await started()
    url = f"ws://127.0.0.1:{server.port.getHost().port}/websocket/?token=good"
    ready = threading.Event()

    def talk():
        more = {"extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=12)]} if bits == 12 else {}
        with connect(url, subprotocols=["towerbus.v1"], **more) as client:
            extensions = client.protocol.extensions
            assert [extension.name for extension in extensions] == ["permessage-deflate"]
            assert extensions[0].remote_no_context_takeover
            assert extensions[0].remote_max_window_bits == bits
            json.loads(client.recv(20))
            client.send(json.dumps({"groups": {"jobs": ["status_changed"]}, "id": "x" * 100}))
            assert json.loads(client.recv(20))["id"] == "x" * 100
            ready.set()
            found = []
            while len(found) < 40:
                message = json.loads(client.recv(20))
                found.append((message["data"]["n"], message["data"]["text"]))
            return found

    talking = deferToThread(talk)
    await until(ready.is_set)
    for number in range(40):
        await server.emit(json.dumps({"n": number, "text": LONG[: number * 16]}).encode())
    assert await talking == [(number, LONG[: number * 16]) for number in range(40)]
    assert 0 < server.deflater.made < server.deflater.taken
    await server.stop()
