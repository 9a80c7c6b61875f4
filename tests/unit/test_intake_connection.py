"""How a connection of the HTTP listener behaves towards clients that mean no good, or are just slow."""

import json
import re
import socket
import threading

import pytest
import pytest_twisted
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from support.posts import GOOD, Intake, Listener, Producers, chunk, chunks
from support.wires import until
from twisted.internet import reactor, ssl
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString, wrapClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from towerbus import web
from towerbus.intake import http

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET /\r\n\r\n",
        b"POST /emit HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /emit HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /emit HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        b"POST /emit HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST /emit HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /emit HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /emit HTTP/1.1\r\nno header\r\n\r\n",
        b"POST /emit HTTP/1.1\r\na b: c\r\n\r\n",
        b"POST /emit HTTP/1.1\r\nx: \0\r\n\r\n",
        b"POST /emit HTTP/1.1\r\n" + b"x: y\r\n" * 501 + b"\r\n",
        b"POST /emit HTTP/1.1\r\n" + b"x: " + b"y" * 20_000 + b"\r\n\r\n",
        b"POST /emit HTTP/1.1\r\n" + (b"x: " + b"y" * 10_000 + b"\r\n") * 2 + b"\r\n",
        b"y" * 20_000,
        b"POST /emit?token=good HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"POST /emit?token=good HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
        b"POST /emit?token=good HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
        b"POST /emit?token=good HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 20_000,
    ],
    ids=lambda head: repr(head[:70] + head[-20:])[2:-1],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_http_is_told_so_and_the_client_can_read_it(head):
    listener = await Listener().start()
    client = await listener.client()
    client.transport.write(head + b" " * 5 * MIB)
    code, answer, head = await client.answer()
    assert (code, "Connection: close" in head) == (400, True)
    assert "RFC 9112" in answer["error"]
    await until(lambda: client.ended)
    assert client.data == b""
    assert listener.connections, "what still comes is passed over"
    assert listener.intake.events == []
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_length_that_lies_is_not_believed():
    clock = Clock()
    listener = await Listener().start(clock=clock)
    short = await listener.client()
    short.post(GOOD + b"POST /emit?token=good HTTP/1.1\r\nsmuggled", f"Content-Length: {len(GOOD)}")
    assert (await short.answer())[0] == 202
    clock.advance(61)
    assert (await short.answer())[0] == 408
    long = await listener.client()
    long.post(GOOD, f"Content-Length: {len(GOOD) + 1}")
    await until(lambda: listener.emit._room.taken)
    clock.advance(61)
    assert (await long.answer())[0] == 408
    assert len(listener.intake.events) == 1
    await listener.stop()


@pytest.mark.parametrize("after", [0, 3])
@pytest_twisted.ensureDeferred
async def test_a_head_that_drips_has_a_deadline(after):
    clock = Clock()
    listener = await Listener().start(clock=clock, seconds=60)
    client = await listener.client()
    for _ in range(after):
        clock.advance(40)
        client.post(GOOD)
        assert (await client.answer())[0] == 202
    await until(lambda: listener.connections)
    client.transport.write(b"POST /emit HTTP/1.1\r\nx: ")
    for dripped in range(1, 60):
        clock.advance(1)
        client.transport.write(b"y")
        await until(lambda dripped=dripped: listener.connections[0]._buffer.endswith(b": " + b"y" * dripped))
    assert client.data == b""
    clock.advance(1)
    assert (await client.answer())[0] == 408
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_that_says_nothing_is_let_go():
    clock = Clock()
    listener = await Listener().start(clock=clock, seconds=60)
    client = await listener.client()
    await until(lambda: listener.connections)
    clock.advance(59)
    assert client.lost is None
    clock.advance(1)
    await until(lambda: client.ended)
    assert client.data == b""
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_refused_client_that_does_not_go_is_cut_off_in_the_end():
    clock = Clock()
    listener = await Listener().start(clock=clock)
    client = await listener.client()
    client.head("Content-Length: 1000000", token="")
    assert (await client.answer())[0] == 401
    await until(lambda: client.ended)
    for _ in range(29):
        clock.advance(1)
        client.transport.write(b" ")
    assert listener.connections
    clock.advance(2)
    await until(lambda: not listener.connections)
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_refused_client_that_goes_is_forgotten_at_once():
    clock = Clock()
    listener = await Listener().start(clock=clock)
    client = await listener.client()
    client.head("Content-Length: 1000000", token="")
    assert (await client.answer())[0] == 401
    client.transport.loseConnection()
    await until(lambda: not listener.connections)
    # What is left is the site's own clock.
    assert len(clock.getDelayedCalls()) == 1
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_where_nothing_more_is_to_come_the_server_ends_the_connection_itself():
    listener = await Listener().start(clock=Clock())
    client = await listener.client()
    client.post(GOOD, "Connection: close")
    code, _, head = await client.answer()
    assert (code, "Connection: close" in head) == (202, True)
    await until(lambda: not listener.connections)
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_no_answer_costs_bounded_memory_and_time():
    clock = Clock()
    listener = await Listener().start(clock=clock, seconds=60)
    client = await listener.client()
    client.transport.pauseProducing()
    # Answers that fill every buffer between here and there.
    for _ in range(200):
        client.transport.write(b"GET /emit?token=good HTTP/1.1\r\n\r\n" * 1000)
    await until(lambda: listener.connections and listener.connections[0]._waitingForTransport)
    connection = listener.connections[0]
    assert len(connection._buffer) + len(connection.transport.dataBuffer) < 30 * MIB
    clock.advance(61)
    clock.advance(31)
    await until(lambda: not listener.connections)
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_simple_client_sends_all_of_its_body_and_then_reads_why_it_was_refused():
    """It blocks in `sendall`, as most do; a reset in its face would be all that it gets to know."""
    listener = await Listener().start()
    port = listener.port.getHost().port

    def simple(result, number):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"POST /emit HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (16 * MIB))
            for _ in range(16):
                client.sendall(b" " * MIB)
            client.sendall(b"POST /emit HTTP/1.1\r\n\r\n")
            told = b""
            while read := client.recv(65536):
                told += read
            result[number] = told

    result = {}
    threads = [threading.Thread(target=simple, args=(result, number)) for number in range(5)]
    for thread in threads:
        thread.start()
    await deferToThread(lambda: [thread.join(40) for thread in threads])
    assert [told.split()[1] for told in result.values()] == [b"401"] * 5
    assert all(b"Connection: close" in told for told in result.values())
    await until(lambda: not listener.connections)
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_over_tls_it_is_the_same(tmp_path):
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    roots = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(authority.cert_pem.bytes())])
    listener = await Listener().start(
        endpoint=serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={tmp_path}/both.pem"),
        wrap=lambda endpoint: wrapClientTLS(ssl.optionsForClientTLS("localhost", trustRoot=roots), endpoint),
    )
    client = await listener.client()
    client.post(GOOD)
    assert (await client.answer())[0] == 202
    client.post(chunk(MIB) * 10, "Transfer-Encoding: chunked", token="unknown")
    code, _, head = await client.answer()
    assert (code, "Connection: close" in head) == (401, True)
    judged = await listener.client()
    listener.producers.later["asked"] = Deferred()
    judged.post(b" " * 10 * MIB, token="asked")
    await until(lambda: listener.emit._under_way)
    listener.producers.later["asked"].callback(None)
    assert (await judged.answer())[0] == 401
    await listener.stop()


class Transport(StringTransport):
    """A transport in memory that can be half closed."""

    half = aborted = False

    def loseWriteConnection(self):
        self.half = True

    def write(self, data):
        if not self.half and not self.disconnecting:
            super().write(data)


class Pages(Resource):
    """Answers at once, or in pieces as it is told; keeps the requests."""

    isLeaf = True

    def __init__(self, *, late=False):
        super().__init__()
        self._late, self.requests = late, []

    def render(self, request):
        self.requests.append(request)
        return 1 if self._late else web.answer(request, 200, {"n": 1})  # NOT_DONE_YET


class Pieces(Transport):
    """Keeps what is written, piece by piece."""

    def __init__(self, *given):
        super().__init__(*given)
        self.pieces = []

    def write(self, data):
        self.pieces.append(data)


def connected(page):
    connection, transport = web.site({b"page": page}, Clock()).buildProtocol(None), Pieces()
    connection.makeConnection(transport)
    return connection, transport


@pytest.mark.parametrize(
    ("request_", "end"),
    [
        (b"GET /page HTTP/1.1\r\n\r\n", b'\r\n\r\n{"n":1}\n'),
        (b"GET /page HTTP/1.0\r\n\r\n", b'\r\n\r\n{"n":1}\n'),
        (b"POST /page HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", b'\r\n\r\n{"n":1}\n'),
        (b"HEAD /page HTTP/1.1\r\n\r\n", b"\r\nContent-Length: 8\r\n\r\n"),
    ],
)
def test_head_and_body_of_an_answer_are_written_as_one(request_, end):
    connection, transport = connected(Pages())
    connection.dataReceived(request_)
    (answer,) = transport.pieces
    assert answer.startswith(b"HTTP/1.%c 200 OK\r\n" % request_.split(b"\r\n")[0][-1])
    assert answer.endswith(end)


def test_an_answer_in_pieces_is_sent_piece_by_piece():
    page = Pages(late=True)
    connection, transport = connected(page)
    connection.dataReceived(b"GET /page HTTP/1.1\r\n\r\n")
    (request,) = page.requests
    request.write(b"")
    assert len(transport.pieces) == 1
    assert transport.pieces[0].endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n"), "nobody has to wait for the head"
    request.write(b"one")
    request.finish()
    assert transport.pieces[1:] == [b"3\r\none\r\n", b"0\r\n\r\n"]


def test_the_addresses_are_those_of_the_first_request_for_all():
    page = Pages()
    connection, transport = connected(page)
    # Whoever is in between has told them by now.
    transport.peerAddr, transport.hostAddr = (IPv4Address("TCP", "192.0.2.1", port) for port in (1, 2))
    connection.dataReceived(b"GET /page HTTP/1.1\r\n\r\n" * 2)
    addresses = [(request.client, request.host) for request in page.requests]
    assert addresses == [(transport.peerAddr, transport.hostAddr)] * 2


@pytest_twisted.ensureDeferred
async def test_an_answer_does_not_wait_for_a_turn_of_the_reactor_but_the_last_one_does_for_the_end():
    listener = await Listener().start(clock=Clock())
    client = await listener.client()
    await until(lambda: listener.connections)
    transport, waited = listener.connections[0].transport, []
    send = transport.writeSomeData
    transport.writeSomeData = lambda data: waited.append(data) or send(data)
    for _ in range(3):
        client.post(GOOD)
        assert (await client.answer())[0] == 202
    assert waited == []
    client.post(GOOD, "Connection: close")
    assert (await client.answer())[0] == 202
    await until(lambda: client.ended)
    assert [data[:13] for data in waited] == [b"HTTP/1.1 202 "], "the answer and the end at once"
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_answers_that_the_kernel_does_not_take_at_once_arrive_whole_and_in_order():
    requests = {
        b"202": b"POST /emit?token=good HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD),
        b"400": b"POST /emit?token=good HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        b"405": b"GET /emit HTTP/1.1\r\n\r\n",
    }
    wanted = [list(requests)[at * at % 7 % 3] for at in range(2000)]
    listener = await Listener().start()
    client = await listener.client()
    await until(lambda: listener.connections)
    connection = listener.connections[0]
    connection.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    client.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.transport.pauseProducing()
    client.transport.write(b"".join(requests[status] for status in wanted))
    await until(lambda: connection._waitingForTransport)
    client.transport.resumeProducing()
    await until(lambda: client.data.count(b"}\n") == len(wanted))
    answer = rb"HTTP/1\.1 (\d+) [\w ]+\r\n(?:[A-Z][\w-]+: [^\r\n]+\r\n){4,5}\r\n\{[^{}]+\}\n"
    assert re.fullmatch(b"(?:%b)*" % answer, client.data)
    assert re.findall(answer, client.data) == wanted
    await listener.stop()


PIECES = [
    b"POST /emit?token=good HTTP/1.1\r\n", b"POST /emit HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"HEAD /emit HTTP/1.1\r\n",
    b"Host: x\r\n", b"Content-Length: %d\r\n" % len(GOOD), b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Connection: close\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"\r\n", GOOD, b"%x\r\n%s\r\n" % (len(GOOD), GOOD), b"0\r\n\r\n",
    b"Authorization: Bearer \xff\r\n", b"Content-Type: \xff\r\n", b"OPTIONS * HTTP/1.1\r\n", b"x", b" ", b"\n", b"Content-Length: " + b"1" * 5000 + b"\r\n",
]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=30), st.data())
def test_whatever_comes_and_however_it_is_cut_nothing_breaks_and_nothing_is_kept(pieces, data):
    """Two connections get the same bytes, cut in different places, and answer the same."""
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    failures = []
    observe = lambda event: failures.append(event) if "log_failure" in event else None  # noqa: E731
    globalLogPublisher.addObserver(observe)
    try:
        whole, cut = outcome(stream, []), outcome(stream, cuts)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not failures
    assert whole == cut


def outcome(stream, cuts):
    """The statuses of the answers, and how many events were taken."""
    intake, clock, transport = Intake(), Clock(), Transport()
    site = http.site(intake, Producers(), clock, max_bytes=500)
    connection = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    connection.makeConnection(transport)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        connection.dataReceived(stream[start:end])
    clock.advance(61)
    clock.advance(31)
    # A connection that is fine has ended, one that is not was cut off.
    assert transport.disconnecting or transport.disconnected or transport.half
    connection.connectionLost(Failure(RuntimeError("gone")))
    assert not clock.getDelayedCalls()
    emit = site.resource.children[b"emit"]
    assert (emit._room.taken, emit._under_way) == (0, 0)
    answers = [
        json.loads(line)["error"][:20] if b"error" in line else line
        for line in transport.value().splitlines()
        if line[:1] == b"{"
    ]
    statuses = [line.split()[1] for line in transport.value().splitlines() if line.startswith(b"HTTP/1.1 ")]
    return statuses, answers, len(intake.events)


@given(st.lists(st.sampled_from(["length", "chunks", "empty", "get"]), min_size=1, max_size=8), st.data())
def test_requests_that_are_right_are_answered_in_order_however_they_are_cut(kinds, data):
    requests = {
        "length": b"POST /emit?token=good HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD),
        "chunks": b"POST /emit?token=good HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n"
        % (len(GOOD), GOOD)
        + chunks(3, 2),
        "empty": b"POST /emit?token=good HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "get": b"GET /emit HTTP/1.1\r\n\r\n",
    }
    stream = b"".join(requests[kind] for kind in kinds)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    statuses, _, events = outcome(stream, cuts)
    wanted = {"length": b"202", "chunks": b"202", "empty": b"400", "get": b"405"}
    assert statuses == [wanted[kind] for kind in kinds]
    assert events == sum(kind in {"length", "chunks"} for kind in kinds)
