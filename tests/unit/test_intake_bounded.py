"""What `POST /emit` costs at the most: bodies, requests that wait, and clients that go away; over raw sockets."""

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from support.posts import GOOD, Listener, chunk, chunks
from support.wires import until
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from towerbus.access import Grants, Identity
from towerbus.errors import PeerError
from towerbus.intake import http
from towerbus.intake.bounded import BodyRefusedError, Room

LIMIT = 100_000
EMITS = Identity(1, grants=Grants(emit=("*",)))
SEES = Identity(2, grants=Grants(subscribe=("*",)))
ONE = len(GOOD) + http.EVENT_BYTES


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
    await until(lambda: client.ended)
    assert client.data == b"", "one answer"
    client.transport.loseConnection()
    await until(lambda: client.lost)
    assert listener.intake.events == []
    await listener.stop()


@pytest.mark.parametrize(
    ("token", "code", "word"),
    [("", 401, "no token"), ("unknown", 401, "not known"), ("sees", 403, "no grant"), ("good", 413, "limit")],
)
@pytest_twisted.ensureDeferred
async def test_the_answer_comes_before_the_body_does_and_the_body_may_still_be_sent(token, code, word):
    listener = await Listener().start(max_body=LIMIT)
    listener.producers.later = {"sees": SEES}
    client = await listener.client()
    client.head(f"Content-Length: {10 * LIMIT}", "Expect: 100-continue", token=token)
    got, answer, head = await client.answer()
    assert (got, "Connection: close" in head) == (code, True)
    assert word in answer["error"]
    client.transport.write(b" " * (10 * LIMIT))
    await until(lambda: listener.connections[0].passed_over <= 64 * 1024 * 1024 - 9 * LIMIT)
    assert client.lost is None, "it is not cut off in the middle"
    assert client.data == b"", "no invitation to send"
    assert listener.emit._room.taken == 0
    await listener.stop()


@pytest.mark.parametrize("token", ["", "unknown"])
@pytest_twisted.ensureDeferred
async def test_without_a_good_token_not_a_byte_is_kept(token):
    listener = await Listener().start()
    client = await listener.client()
    client.head("Transfer-Encoding: chunked", token=token)
    client.transport.write(chunk(LIMIT) * 50)
    assert (await client.answer())[0] == 401
    connection = listener.connections[0]
    await until(lambda: connection.passed_over < 64 * 1024 * 1024 - 45 * LIMIT)
    assert connection._buffer == b""
    assert connection.requests == []
    await listener.stop()


@pytest.mark.parametrize(("identity", "code"), [(EMITS, 202), (SEES, 403), (None, 401)])
@pytest_twisted.ensureDeferred
async def test_while_the_token_is_judged_the_body_stays_where_it_is(identity, code):
    listener = await Listener().start()
    judged = listener.producers.later["asked"] = Deferred()
    client, other = await listener.client(), await listener.client()
    body = GOOD + b" " * 15_000_000
    client.post(body, "Expect: 100-continue", token="asked")
    await until(lambda: listener.emit._under_way)
    # As many turns as a body of this size would need.
    for _ in range(20):
        other.post(GOOD)
        assert (await other.answer())[0] == 202
    judging = next(connection for connection in listener.connections if connection.requests)
    # What the transport does when it has sent what it had.
    judging.resumeProducing()
    for _ in range(20):
        other.post(GOOD)
        assert (await other.answer())[0] == 202
    assert len(judging._buffer) < 1_000_000
    assert client.data == b"", "nobody is invited before it is known who it is"
    listener.intake.events.clear()
    judged.callback(identity)
    if code == 202:
        await until(lambda: client.data.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"))
        client.data = client.data[25:]
    got, _, head = await client.answer()
    assert (got, "Connection: close" in head) == (code, code != 202)
    assert len(listener.intake.events) == (code == 202)
    if code == 202:
        client.post(GOOD)
        assert (await client.answer())[0] == 202, "the connection is kept"
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_is_invited_once_its_token_is_good():
    listener = await Listener().start()
    client = await listener.client()
    client.head(f"Content-Length: {len(GOOD)}", "Expect: 100-Continue")
    await until(lambda: client.data == b"HTTP/1.1 100 Continue\r\n\r\n")
    client.data = b""
    client.transport.write(GOOD)
    assert (await client.answer())[0] == 202
    client.post(GOOD)
    assert (await client.answer())[0] == 202
    await listener.stop()


@pytest.mark.parametrize("noticed", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_while_its_token_is_judged_harms_nothing(noticed):
    listener = await Listener().start()
    judged = listener.producers.later["asked"] = Deferred()
    client = await listener.client()
    client.post(b" " * LIMIT, token="asked")
    await until(lambda: listener.emit._under_way)
    client.transport.abortConnection()
    if noticed:
        listener.connections[0].transport.abortConnection()
        await until(lambda: not listener.connections)
    judged.callback(EMITS)
    await until(lambda: not listener.connections)
    assert listener.intake.events == []
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_requests_behind_a_refused_one_are_not_carried_out():
    listener = await Listener().start()
    client = await listener.client()
    for token in ("unknown", "good", "good"):
        client.post(GOOD, token=token)
    assert (await client.answer())[0] == 401
    await until(lambda: client.ended)
    assert client.data == b""
    assert listener.intake.events == []
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_requests_behind_a_good_one_wait_for_its_answer():
    listener = await Listener().start()
    confirmed = Deferred()
    listener.intake.answer = lambda: confirmed
    client = await listener.client()
    for _ in range(3):
        client.post(GOOD)
    client.post(GOOD + b" " * 15_000_000)
    await until(lambda: listener.intake.events)
    assert sum(map(len, listener.connections[0]._dataBuffer)) < 1_000_000
    assert len(listener.intake.events) == 1
    confirmed.callback(None)
    listener.intake.answer = lambda: succeed(None)
    assert [(await client.answer())[0] for _ in range(4)] == [202] * 4
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_what_never_ends_is_cut_off(monkeypatch):
    monkeypatch.setattr("towerbus.intake.connection.BoundedConnection.passed_over", 3 * LIMIT)
    listener = await Listener().start(max_body=LIMIT)
    client = await listener.client()
    client.post(chunks(LIMIT, 50)[: -len(b"0\r\n\r\n")], "Transfer-Encoding: chunked")
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
    ("options", "word"), [({"max_under_way": 1}, "1 requests"), ({"max_bytes": ONE + 1}, "bytes are")]
)
@pytest_twisted.ensureDeferred
async def test_what_waits_is_bounded_and_room_comes_back(options, word):
    listener = await Listener().start(**options)
    confirmed = Deferred()
    listener.intake.answer = lambda: confirmed
    first, second, third = [await listener.client() for _ in range(3)]
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
    third.post(GOOD)
    assert (await third.answer())[0] == 202
    await listener.stop()


@pytest.mark.parametrize("chunked", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_bodies_that_are_being_received_are_bounded_together(chunked):
    listener = await Listener().start(max_bytes=3 * LIMIT)
    room = listener.emit._room
    clients = [await listener.client() for _ in range(4)]
    for client in clients[:3]:
        client.head("Transfer-Encoding: chunked" if chunked else f"Content-Length: {LIMIT}")
        client.transport.write(chunk(LIMIT)[:-100] if chunked else b" " * (LIMIT - 100))
    await until(lambda: room.taken > 3 * LIMIT - 1000)
    clients[3].post(chunks(1000, 1) if chunked else b" " * 1000, *["Transfer-Encoding: chunked"] * chunked)
    code, answer, head = await clients[3].answer()
    assert (code, "Retry-After: 1" in head, "Connection: close" in head) == (429, True, True)
    assert "being received" in answer["error"]
    # Room comes back from one that goes away, and from one that is done.
    clients[0].transport.abortConnection()
    await until(lambda: room.taken < 2 * LIMIT + 1000)
    clients[1].transport.write(b" " * 98 + b"\r\n0\r\n\r\n" if chunked else b" " * 100)
    assert (await clients[1].answer())[0] == 400
    await until(lambda: room.taken < LIMIT + 1000)
    clients[1].post(GOOD)
    assert (await clients[1].answer())[0] == 202
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_one_body_alone_may_be_larger_than_all_the_room():
    listener = await Listener().start(max_bytes=1000)
    client = await listener.client()
    client.post(GOOD + b" " * LIMIT)
    assert (await client.answer())[0] == 202
    client.post(chunk(LIMIT) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD), "Transfer-Encoding: chunked")
    assert (await client.answer())[0] == 202
    await listener.stop()


@pytest.mark.parametrize("later", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_body_that_drips_has_a_deadline(later):
    clock = Clock()
    listener = await Listener().start(clock=clock, seconds=60)
    judged = listener.producers.later["asked"] = Deferred()
    client = await listener.client()
    clock.advance(50)
    client.head(f"Content-Length: {LIMIT}", token="asked" if later else "good")
    await until(lambda: listener.emit._under_way)
    if later:
        clock.advance(50)
        assert client.data == b"", "whoever judges has time of his own"
        judged.callback(EMITS)
    for dripped in range(1, 60):
        clock.advance(1)
        client.transport.write(b" ")
        await until(lambda dripped=dripped: listener.connections[0].requests[0]._received == dripped)
    clock.advance(1)
    code, answer, head = await client.answer()
    assert (code, answer) == (408, {"error": "the request did not come within 60 seconds"})
    assert "Connection: close" in head
    assert listener.emit._room.taken == 0
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
    other = await listener.client()
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
    listener = await Listener().start(max_bytes=2 * ONE)
    for _ in range(2):
        clients = [await listener.client() for _ in range(3)]
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


@pytest_twisted.ensureDeferred
async def test_other_resources_do_not_see_a_body_and_may_answer_late():
    class Late(Resource):
        def render(self, request):
            requests.append(request)
            return 1  # NOT_DONE_YET

    requests = []
    listener = await Listener().start(children={b"late": Late()})
    client, other = await listener.client(), await listener.client()
    client.post(b"x" * 15_000_000, path="/late")
    other.post(b"", method="GET", path="/late")
    await until(lambda: len(requests) == 2)
    for request in requests:
        request.setHeader(b"content-length", b"2")
        request.write(b"{}")
        request.finish()
    code, _, head = await client.answer()
    assert (code, "Connection: close" in head) == (200, True)
    code, _, head = await other.answer()
    assert (code, "Connection: close" in head) == (200, False)
    await until(lambda: client.ended)
    await listener.stop()


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_refused_is_not_read_on_while_its_answer_takes_time():
    class Slow(Resource):
        def render(self, request):
            requests.append(request)
            request.receive(Room(LIMIT)).addErrback(refused.append)
            return 1  # NOT_DONE_YET

    requests, refused = [], []
    listener = await Listener().start(children={b"slow": Slow()})
    client = await listener.client()
    client.post(b"no chunk\r\n", "Transfer-Encoding: chunked", path="/slow")
    await until(lambda: refused)
    client.transport.write(b"nor this\r\n" * LIMIT)
    other = await listener.client()
    for _ in range(20):
        other.post(GOOD)
        assert (await other.answer())[0] == 202
    assert client.data == b""
    assert refused[0].value.status == 400
    requests[0].setHeader(b"content-length", b"2")
    requests[0].write(b"{}")
    requests[0].finish()
    assert (await client.answer())[:2] == (200, {})
    await until(lambda: client.ended)
    assert client.data == b"", "one answer"
    await listener.stop()


@given(st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 700))))
def test_room_is_never_taken_beyond_its_size_but_by_one_alone(size, wishes):
    room, held = Room(size), [0] * 4
    for body, wish in wishes:
        try:
            room.take(wish, held[body])
        except BodyRefusedError as error:
            assert error.status == 429
            assert sum(held) - held[body] > 0
            assert sum(held) + wish > size
            room.give_back(held[body])
            held[body] = 0
        else:
            held[body] += wish
            assert sum(held) <= size or sum(held) == held[body]
        assert room.taken == sum(held)
