"""What `POST /emit` costs at the most: bodies, requests that wait, and clients that go away; over raw sockets."""

import json

import pytest
import pytest_twisted
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from zope.interface import implementer
from zope.interface.verify import verifyObject

from towerbus.access import Grants, Identity
from towerbus.auth.interface import IAuthenticator
from towerbus.errors import PeerError
from towerbus.intake import bounded, http
from towerbus.intake.interface import IIntake

GOOD = b'{"group":"jobs","type":"status_changed","payload":{ "n" :1}}'
LIMIT = 100_000


@implementer(IIntake)
class Intake:
    """Keeps what it gets, and answers as it is told."""

    def __init__(self):
        self.events, self.answer = [], lambda: succeed(None)

    def emit(self, events):
        self.events.extend(events)
        return self.answer()


@implementer(IAuthenticator)
class Everybody:
    """Lets everybody emit."""

    def authenticate(self, credential):
        return Identity(1, grants=Grants(emit=("*",)))


class Raw(Protocol):
    """Sends what it is told, and keeps what comes."""

    def __init__(self):
        self.data, self.lost = b"", False

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.lost = True

    def post(self, body, *headers):
        if not any(header.startswith(("Content-Length", "Transfer-Encoding")) for header in headers):
            headers = (*headers, f"Content-Length: {len(body)}")
        lines = ["POST /emit?token=x HTTP/1.1", "Host: x", *headers, "", ""]
        self.transport.write("\r\n".join(lines).encode() + body)

    async def answer(self):
        """Status and body of the one answer there is."""
        await until(lambda: b"\r\n\r\n" in self.data and self.data.endswith(b"}\n"))
        assert self.data.count(b"HTTP/1.1 ") == 1
        head, _, body = self.data.partition(b"\r\n\r\n")
        self.data = b""
        return int(head.split()[1]), json.loads(body), head.decode()


class Listener:
    """The HTTP listener on a real port, with clients."""

    async def start(self, **options):
        self.intake, self.clients = Intake(), []
        assert verifyObject(IIntake, self.intake)
        site = http.site(self.intake, Everybody(), reactor, **options)
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        return self

    async def client(self):
        client = Raw()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        self.clients.append(await connectProtocol(endpoint, client))
        return client

    async def stop(self):
        for client in self.clients:
            client.transport.abortConnection()
        await until(lambda: all(client.lost for client in self.clients))
        await self.port.stopListening()


def chunks(size, count):
    return (f"{size:x}\r\n".encode() + b" " * size + b"\r\n") * count + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ((), b" " * (3 * LIMIT)),
        (("Transfer-Encoding: chunked",), chunks(LIMIT // 2, 6)),
        (("Transfer-Encoding: chunked",), chunks(10, LIMIT // 5)),
    ],
    ids=["announced", "large chunks", "small chunks"],
)
@pytest_twisted.ensureDeferred
async def test_a_body_over_the_limit_has_one_answer_and_is_read_to_its_end(headers, body):
    listener = await Listener().start(max_body=LIMIT)
    client = await listener.client()
    client.post(body, *headers)
    code, answer, head = await client.answer()
    assert (code, answer) == (413, {"error": f"the body is over the limit of {LIMIT} bytes"})
    assert "Connection: close" in head
    await until(lambda: client.lost)
    assert client.data == b"", "one answer"
    assert listener.intake.events == []
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_the_answer_comes_before_the_body_does():
    listener = await Listener().start(max_body=LIMIT)
    client = await listener.client()
    client.post(b"", f"Content-Length: {LIMIT + 1}", "Expect: 100-continue")
    assert (await client.answer())[0] == 413
    assert not client.lost, "it may still be sending, and is not cut off"
    client.transport.write(b" " * (LIMIT + 1))
    await until(lambda: client.lost)
    assert client.data == b"", "no invitation to send"
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_what_never_ends_is_cut_off():
    listener = await Listener().start(max_body=LIMIT)
    client = await listener.client()
    client.post(chunks(LIMIT, bounded.PATIENCE + 1)[: -len(b"0\r\n\r\n")], "Transfer-Encoding: chunked")
    await until(lambda: client.lost)
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_body_of_just_the_limit_is_taken():
    listener = await Listener().start(max_body=LIMIT)
    client = await listener.client()
    body = GOOD + b" " * (LIMIT - len(GOOD))
    client.post(body)
    assert (await client.answer())[0] == 202
    client.post(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    assert (await client.answer())[0] == 202
    await listener.stop()


@pytest.mark.parametrize(
    ("options", "word"), [({"max_under_way": 1}, "1 requests"), ({"max_bytes": len(GOOD) + 1}, "bytes wait")]
)
@pytest_twisted.ensureDeferred
async def test_what_waits_is_bounded_and_room_comes_back(options, word):
    listener = await Listener().start(**options)
    confirmed = Deferred()
    listener.intake.answer = lambda: confirmed
    first, second = await listener.client(), await listener.client()
    first.post(GOOD)
    await until(lambda: listener.intake.events)
    second.post(GOOD)
    code, answer, head = await second.answer()
    assert code == 429
    assert word in answer["error"]
    assert "Retry-After: 1" in head
    confirmed.callback(None)
    assert (await first.answer())[0] == 202
    listener.intake.answer = lambda: succeed(None)
    second.post(GOOD)
    assert (await second.answer())[0] == 202
    await listener.stop()


@pytest.mark.parametrize("outcome", [None, RuntimeError("not heard")], ids=["confirmed", "failed"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_while_it_waits_harms_nothing(outcome, logged_failures):
    listener = await Listener().start(max_under_way=1)
    confirmed = Deferred()
    listener.intake.answer = lambda: confirmed
    client = await listener.client()
    client.post(GOOD)
    await until(lambda: listener.intake.events)
    client.transport.abortConnection()
    await until(lambda: client.lost)
    other = await listener.client()
    other.post(GOOD)
    assert (await other.answer())[0] == 429, "what waits still counts"
    if outcome is None:
        confirmed.callback(None)
    else:
        confirmed.errback(outcome)
        assert [failure.value for failure in logged_failures] == [outcome]
        logged_failures.clear()
    listener.intake.answer = lambda: succeed(None)
    other.post(GOOD)
    assert (await other.answer())[0] == 202
    await listener.stop()


@pytest.mark.parametrize(
    ("media_type", "word"), [("application/x-ndjson", "line 1"), ("Application/X-NDJSON; charset=utf-8", "line 1")]
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_says_that_it_is_lines_is_read_as_lines(media_type, word):
    listener = await Listener().start()
    client = await listener.client()
    client.post(b"nonsense\n" + GOOD, f"Content-Type: {media_type}")
    code, answer, _ = await client.answer()
    assert code == 400
    assert word in answer["error"]
    client.post(GOOD + b"\n" + GOOD, f"Content-Type: {media_type}")
    assert (await client.answer())[:2] == (202, {"accepted": 2})
    await listener.stop()


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_called_a_form_is_taken_as_it_is(media_type):
    listener = await Listener().start()
    client = await listener.client()
    client.post(GOOD, f"Content-Type: {media_type}")
    assert (await client.answer())[0] == 202
    assert listener.intake.events[0].payload == b'{ "n" :1}'
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_what_the_intake_finds_wrong_is_the_producers_fault():
    listener = await Listener().start()
    listener.intake.answer = lambda: fail(PeerError("too large for this bus"))
    client = await listener.client()
    client.post(GOOD)
    assert (await client.answer())[:2] == (400, {"error": "too large for this bus"})
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_bytes_that_wait_no_longer_are_counted_no_longer():
    listener = await Listener().start(max_bytes=2 * len(GOOD))
    clients = [await listener.client() for _ in range(3)]
    for _ in range(2):
        confirmed = Deferred()
        listener.intake.answer = lambda confirmed=confirmed: confirmed
        listener.intake.events.clear()
        for client in clients[:2]:
            client.post(GOOD)
        await until(lambda: len(listener.intake.events) == 2)
        clients[2].post(GOOD)
        assert (await clients[2].answer())[0] == 429
        confirmed.callback(None)
        assert [(await client.answer())[0] for client in clients[:2]] == [202, 202]
    await listener.stop()
