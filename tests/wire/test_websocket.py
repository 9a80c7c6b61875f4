"""The wire: handshakes, credentials, deadlines, bad input, all over real connections."""

import gc

import pytest
import pytest_twisted
from support.wires import EVERYTHING, Server, Table, until
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from zope.interface import implementer

from towerbus.access import Grants, Identity
from towerbus.auth.interface import IAccessOracle, NotNow, Refused, Turnover
from towerbus.session import Session
from towerbus.topics import Topic
from towerbus.wire.outlet import Outlet
from towerbus.wire.websocket import EventsProtocol

ACCEPT = {"accept": True, "user": 7}


@pytest.fixture
def logged():
    """Every log line, as a person would read it."""
    lines = []

    def observe(made):
        lines.append(formatEvent(made))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/websocket/?token=good", []),
        ("/websocket?token=good", []),
        ("/websocket/", ["Authorization: Bearer good"]),
        ("/websocket/", ["Sec-WebSocket-Protocol: tower, bearer.good"]),
        ("/websocket/", ["Sec-WebSocket-Protocol: bearer.good"]),
        ("/websocket/", ['Cookie: token="good";']),
        ("/websocket/?token=good", ["Origin: null"]),
        ("/websocket/?token=good", ["Origin: http://elsewhere.example:8013"]),
        ("/websocket/?token=good", ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_ways_to_get_in(path, headers):
    server = await Server().start()
    client = await server.client(path, headers)
    await client.until(1)
    assert client.json == [ACCEPT]
    assert "bearer" not in client.head.lower()
    assert "Sec-WebSocket-Extensions" not in client.head
    assert ("Sec-WebSocket-Protocol: tower" in client.head) == any("tower," in header for header in headers)
    await server.stop()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/websocket/", []),
        ("/websocket/?token=bad", []),
        ("/websocket/?token=", ["Authorization: Bearer good"]),
        ("/websocket/?token=&x=1", ["Authorization: Bearer good"]),
        ("/websocket/?token=bad", ["Authorization: Bearer good"]),
        ("/websocket/", ["Authorization: Bearer bad", "Cookie: token=good"]),
        ("/websocket/", ["Authorization: Basic good"]),
        ("/websocket/?token=expired", []),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_does_not_get_in_is_told_and_closed_with_1000(path, headers, logged):
    server = await Server(authenticator=Table({"good": Identity(7), "expired": Refused("expired")})).start()
    client = await server.client(path, headers)
    assert await client.closed() == 1000
    assert client.json == [{"close": True}]
    assert any(line.startswith("authentication_refused") for line in logged)
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_when_nobody_can_tell_the_client_is_asked_to_come_back():
    server = await Server(authenticator=Table({"good": NotNow("away")})).start()
    client = await server.client()
    assert await client.closed() == 1013
    assert client.messages == []
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_frames_wait_for_a_slow_authentication():
    slow = Deferred()
    server = await Server(authenticator=Table({"good": slow})).start()
    client = await server.client()
    client.say({"groups": {"jobs": ["status_changed"]}})
    (wire,) = server.factory.wires
    await until(lambda: wire.session._waiting)
    assert client.messages == []
    slow.callback(Identity(7))
    await client.until(2)
    assert client.json[0] == ACCEPT
    assert client.json[1]["groups_joined"] == ["jobs-status_changed"]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_an_authenticator_that_breaks_is_our_fault_and_lets_nobody_in(logged_failures):
    broken = Deferred()
    server = await Server(authenticator=Table({"good": broken})).start()
    client = await server.client()
    broken.errback(RuntimeError("broken"))
    assert await client.closed() == 1000
    assert [failure.type for failure in logged_failures] == [RuntimeError]
    logged_failures.clear()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_session_cookie_wants_its_echo():
    server = await Server(authenticator=Table({"abc": Identity(7)})).start()
    client = await server.client("/websocket/", ['Cookie: awx_sessionid="abc";csrftoken=tok456'])
    client.say({"groups": {"jobs": ["summary"]}, "xrftoken": "wrong"})
    client.say({"groups": {"jobs": ["summary"]}, "xrftoken": "tok456"})
    await client.until(3)
    assert client.json[1] == {"error": "access denied to channel"}
    assert client.json[2]["groups_joined"] == ["jobs-summary"]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_expiry_is_enforced_on_a_live_socket():
    clock = task.Clock()
    clock.advance(1000)
    identity = Identity(7, grants=EVERYTHING, expires=1010.0)
    server = await Server(
        authenticator=Table({"good": identity}), clock=clock, seconds=clock.seconds, now=clock.seconds
    ).start()
    client = await server.subscribed()
    clock.advance(9)
    await server.emit(b'{"n":1}')
    await client.until(1)
    clock.pump([1] * 4)
    await server.emit(b'{"n":2}')
    assert await client.closed() == 1000
    assert client.json == [{"n": 1}, {"close": True}]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_dropped():
    clock = task.Clock()
    server = await Server(ping_interval=10, clock=clock, seconds=clock.seconds).start()
    lively, dead = await server.subscribed(), await server.subscribed()
    dead.answers_pings = False
    for _ in range(60):
        pings = lively.pings
        clock.advance(1)
        await task.deferLater(reactor, 0.002, lambda: None)
        if lively.pings > pings:
            await until(
                lambda: (
                    all(wire.heard for wire in server.factory.wires if not wire.transport.disconnected)
                    or dead.lost
                    or dead.pings
                )
            )
    await until(lambda: dead.lost)
    assert not lively.lost
    assert lively.pings >= 3
    assert server.factory.counts.pings_unanswered == 1
    await server.stop()


@pytest.mark.parametrize("stage", ["nothing sent", "half a request", "no authentication"])
@pytest_twisted.ensureDeferred
async def test_who_does_not_get_on_is_dropped(stage):
    clock = task.Clock()
    server = await Server(authenticator=Table({"good": Deferred()}), clock=clock, seconds=clock.seconds).start()
    client = await server.client(handshake=stage == "no authentication")
    if stage == "half a request":
        client.transport.write(b"GET /websocket/ HTTP/1.1\r\nHost: x\r\n")
    await until(lambda: server.factory.wires)
    clock.pump([1] * 13)
    await client.closed()
    await server.stop()


GOOD = (
    "GET /websocket/?token=good HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13",
)  # fmt: skip


def without(start):
    return [line for line in GOOD if not line.startswith(start)]


def instead(start, line):
    return [line if old.startswith(start) else old for old in GOOD]


BAD_HANDSHAKES = {
    "another path": (instead("GET", "GET /elsewhere?token=good HTTP/1.1"), 404),
    "the path and more": (instead("GET", "GET /websocket/x?token=good HTTP/1.1"), 404),
    "POST": (instead("GET", "POST /websocket/ HTTP/1.1"), 405),
    "HTTP/1.0": (instead("GET", "GET /websocket/ HTTP/1.0"), 505),
    "no version": (instead("GET", "GET /websocket/"), 400),
    "a fragment": (instead("GET", "GET /websocket/#x HTTP/1.1"), 400),
    "no host": (without("Host"), 400),
    "two hosts": ([*GOOD, "Host: other"], 400),
    "a wrong port": (instead("Host", "Host: x:http"), 400),
    "no upgrade": (without("Upgrade"), 426),
    "another upgrade": (instead("Upgrade", "Upgrade: h2c"), 400),
    "no connection": (without("Connection"), 400),
    "another connection": (instead("Connection", "Connection: close"), 400),
    "no key": (without("Sec-WebSocket-Key"), 400),
    "a short key": (instead("Sec-WebSocket-Key", "Sec-WebSocket-Key: AAAA"), 400),
    "a key that is no base64": (instead("Sec-WebSocket-Key", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), 400),
    "two keys": ([*GOOD, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="], 400),
    "no websocket version": (without("Sec-WebSocket-Version"), 400),
    "an old websocket version": (instead("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"), 400),
    "a wrong websocket version": (instead("Sec-WebSocket-Version", "Sec-WebSocket-Version: x"), 400),
    "a protocol twice": ([*GOOD, "Sec-WebSocket-Protocol: bearer.SECRET, bearer.SECRET"], 400),
    "a broken origin": ([*GOOD, "Origin: nonsense"], 400),
    "nothing like HTTP": (["\x16\x03\x01\x02"], 400),
    "a request without end": ([*GOOD, "Cookie: " + "x" * 17_000], 431),
    "a long request with its end": (["GET /websocket/?token=good HTTP/1.1", "X: " + "x" * 40_000, *GOOD[1:]], 431),
    "a secret in a bad request": (instead("GET", "GET /websocket/?token=SECRET HTTP/1.1 extra"), 400),
}


@pytest.mark.parametrize("kind", BAD_HANDSHAKES)
@pytest_twisted.ensureDeferred
async def test_bad_handshakes_are_answered_with_a_reason(kind, logged):
    lines, code = BAD_HANDSHAKES[kind]
    server = await Server().start()
    other = await server.subscribed()
    client = await server.client(handshake=False)
    text = "\r\n".join([*lines, "", ""])
    client.transport.write(text[:-4].encode() if kind == "a request without end" else text.encode())
    await client.closed()
    assert client.head.startswith(f"HTTP/1.1 {code} "), client.head
    assert len(client.data) > 10, "the reason is told"
    assert "SECRET" not in "".join(logged)
    assert any(line.startswith(f"handshake_refused: {code}") for line in logged)
    await server.emit(b'{"n":1}')
    await other.until(1)
    await server.stop()


def half_a_character(client):
    client.frame(1, b"\xc3", fin=False)
    client.frame(0, b"(", fin=True)


def too_long_in_pieces(client):
    client.frame(1, b'{"groups": "', fin=False)
    client.frame(0, b"x" * 40_000, fin=False)
    client.frame(0, b"x" * 40_000)


BAD_FRAMES = {
    "not masked": (lambda client: client.frame(1, b"{}", mask=False), 1002),
    "reserved bits": (lambda client: client.frame(1, b"{}", rsv=4), 1002),
    "a reserved opcode": (lambda client: client.frame(3, b"{}"), 1002),
    "a reserved control opcode": (lambda client: client.frame(11, b""), 1002),
    "a continuation of nothing": (lambda client: client.frame(0, b"{}"), 1002),
    "a message inside a message": (lambda client: (client.frame(1, b"{", fin=False), client.frame(1, b"}")), 1002),
    "a ping in pieces": (lambda client: client.frame(9, b"", fin=False), 1002),
    "a long ping": (lambda client: client.frame(9, b"x" * 126), 1002),
    "a close code of one byte": (lambda client: client.frame(8, b"x"), 1002),
    "a close code that does not exist": (lambda client: client.frame(8, b"\x00\x01"), 1002),
    "a close reason that is no text": (lambda client: client.frame(8, b"\x03\xe8\xff"), 1007),
    "no UTF-8": (lambda client: client.frame(1, b'{"groups": "\xff"}'), 1007),
    "half a character": (half_a_character, 1007),
    "too long": (lambda client: client.frame(1, b"x" * 65_537), 1009),
    "too long in pieces": (too_long_in_pieces, 1009),
    "a message without end": (lambda client: [client.frame(n == 0, b"", fin=False) for n in range(5000)], 1008),
    "a lie about its length": (
        lambda client: client.transport.write(b"\x81\xff\x7f" + b"\xff" * 7 + b"\0\0\0\0"),
        1009,
    ),
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
@pytest_twisted.ensureDeferred
async def test_frames_that_the_rfc_forbids_close_with_its_code(kind):
    send, code = BAD_FRAMES[kind]
    server = await Server().start()
    client, other = await server.subscribed(), await server.subscribed()
    send(client)
    assert await client.closed() == code
    await server.emit(b'{"n":1}')
    await other.until(1)
    assert other.messages == [b'{"n":1}']
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_repeated_abuse_is_closed_with_1008():
    server = await Server().start()
    client = await server.subscribed()
    for _ in range(30):
        client.say(b"nonsense")
    assert await client.closed() == 1008
    assert all("JSON" in answer["error"] for answer in client.json)
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_binary_frame_is_answered_and_the_socket_stays():
    server = await Server().start()
    client = await server.subscribed()
    client.frame(2, b'{"groups": {}}')
    await client.until(1)
    assert "binary" in client.json[0]["error"]
    client.say({"groups": {}})
    await client.until(2)
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_message_in_many_pieces_with_pings_between_is_understood():
    server = await Server().start()
    client = await server.subscribed()
    text = '{"groups": {"jobs": ["summary"]}, "note": "äöü"}'.encode()
    client.frame(1, text[:1], fin=False)
    for at in range(1, len(text)):
        client.frame(9, b"x")
        client.frame(0, text[at : at + 1], fin=at == len(text) - 1)
    await client.until(1)
    assert client.json[0]["groups_current"] == ["jobs-summary"]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_many_messages_in_one_segment_and_one_in_many_are_understood():
    server = await Server().start()
    client = await server.subscribed()
    writes = []
    write, client.transport.write = client.transport.write, writes.append
    for n in range(50):
        client.say({"groups": {"jobs": [n]}})
    client.transport.write = write
    data = b"".join(writes)
    for at in range(0, len(data), 7):
        write(data[at : at + 7])
        if at % 70 == 0:
            await task.deferLater(reactor, 0, lambda: None)
    await client.until(50)
    assert [reply["groups_current"] for reply in client.json] == [[f"jobs-{n}"] for n in range(50)]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_the_clients_close_is_answered_and_nothing_follows_it():
    server = await Server().start()
    client = await server.subscribed()
    client.frame(8, b"\x03\xe8")
    await server.emit(b'{"n":1}')
    assert await client.closed() == 1000
    await until(lambda: not server.factory.wires)
    assert server.lane.topics == 0
    assert server.factory.counts.clients == 0
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_that_vanishes_is_forgotten():
    server = await Server().start()
    client = await server.subscribed()
    client.transport.abortConnection()
    await until(lambda: not server.factory.wires)
    assert server.lane.topics == 0
    assert not server.deadlines._slots
    await server.emit(b'{"n":1}')
    await server.stop()


@implementer(IAccessOracle)
class Oracle:
    """An application that takes its time."""

    def __init__(self):
        self.asked = []

    def allowed(self, identity, topics):
        self.asked.append((identity.user, topics, Deferred()))
        return self.asked[-1][2]


@pytest_twisted.ensureDeferred
async def test_the_application_is_asked_who_may_see():
    oracle = Oracle()
    server = await Server(authenticator=Table({"good": Identity(7)}), oracle=oracle).start()
    client = await server.client()
    client.say({"groups": {"job_events": [42, 43]}})
    await until(lambda: oracle.asked)
    ((user, topics, answer),) = oracle.asked
    assert (user, topics) == (7, {Topic("job_events", "42"), Topic("job_events", "43")})
    answer.callback(frozenset({Topic("job_events", "42")}))
    await client.until(3)
    assert client.json[1] == {"error": "access denied to channel job_events for resource id 43"}
    assert client.json[2]["groups_current"] == ["job_events-42"]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_an_application_that_fails_allows_nothing(logged_failures):
    oracle = Oracle()
    server = await Server(authenticator=Table({"good": Identity(7)}), oracle=oracle).start()
    client = await server.client()
    client.say({"groups": {"job_events": [42]}})
    await until(lambda: oracle.asked)
    oracle.asked[0][2].errback(RuntimeError("away"))
    await client.until(3)
    assert client.json[2]["groups_current"] == []
    logged_failures.clear()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_list_of_origins_is_kept_to():
    server = await Server(origins=("https://tower.example:443",)).start()
    good = await server.client(headers=["Origin: https://tower.example"])
    await good.until(1)
    bad = await server.client(headers=["Origin: https://evil.example"])
    assert bad.head.startswith("HTTP/1.1 400 ")
    null = await server.client(headers=["Origin: null"])
    assert null.head.startswith("HTTP/1.1 400 ")
    await server.stop()


@pytest.mark.parametrize(
    ("pattern", "origin", "status"),
    [
        ("https://*.example.com", "https://tower.example.com", 101),
        ("https://*.example.com", "https://tower.example.com:444", 400),
        ("https://*.example.com", "http://tower.example.com", 400),
        ("http://tower.example", "http://tower.example:80", 101),
        ("http://tower.example:8013", "http://tower.example:8013", 101),
        ("http://tower.example:*", "http://tower.example:8013", 101),
        ("https://*", "https://elsewhere.example:444", 101),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_pattern_of_origins_stands_for_the_schemes_own_port(pattern, origin, status):
    server = await Server(origins=(pattern,)).start()
    client = await server.client(headers=[f"Origin: {origin}"])
    assert client.head.startswith(f"HTTP/1.1 {status} ")
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_bad_clients_leave_nothing_behind():
    server = await Server().start()
    for number in range(64):
        client = await server.client()
        list(BAD_FRAMES.values())[number % len(BAD_FRAMES)][0](client)
        await client.closed()
    await until(lambda: not server.factory.wires)
    gc.collect()
    left = [thing for thing in gc.get_objects() if isinstance(thing, EventsProtocol | Session | Outlet)]
    assert not left
    assert not server.deadlines._slots
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_who_is_known_no_more_is_ended_and_the_others_stay(monkeypatch):
    monkeypatch.setattr("towerbus.wire.factory.SLICE", 2)
    gone, stays = Identity(7, grants=EVERYTHING), Identity(7, grants=EVERYTHING)
    server = await Server(authenticator=Table({"gone": gone, "stays": stays})).start()
    ended = [await server.subscribed(path="/websocket/?token=gone") for _ in range(5)]
    v1 = await server.client("/websocket/?token=gone", ["Sec-WebSocket-Protocol: towerbus.v1"])
    other = await server.subscribed(path="/websocket/?token=stays")
    server.factory.turn_over(Turnover([(gone, None)]))
    for client in ended:
        assert await client.closed() == 1000
        assert client.json == [{"close": True}]
    assert await v1.closed() == 4401
    assert v1.json[-1]["code"] == "not_authenticated"
    server.emit(b'{"n":1}')
    await other.until(1)
    assert other.json == [{"n": 1}]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_two_turnovers_at_once_count_one_after_the_other(monkeypatch):
    monkeypatch.setattr("towerbus.wire.factory.SLICE", 1)
    first, second = Identity(7, grants=EVERYTHING), Identity(7, "ada", EVERYTHING)
    server = await Server(authenticator=Table({"good": first})).start()
    clients = [await server.subscribed() for _ in range(3)]
    server.factory.turn_over(Turnover([(first, second)]))
    server.factory.turn_over(Turnover([(second, None)]))
    for client in clients:
        assert await client.closed() == 1000
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_whose_grants_shrink_hears_less_and_stays():
    before, after = (Identity(7, grants=Grants(grants)) for grants in (("job_events/*", "x/y"), ("x/y",)))
    server = await Server(authenticator=Table({"good": before})).start()
    client = await server.subscribed({"job_events": [42], "x": ["y"]})
    server.factory.turn_over(Turnover([(before, after)]))
    await client.until(2)
    denied, current = client.json
    assert "error" in denied
    assert current["groups_left"] == ["job_events-42"]
    assert current["groups_current"] == ["x-y"]
    server.emit(b'{"n":1}', ("job_events", "42"))
    server.emit(b'{"n":2}', ("x", "y"))
    await client.until(3)
    assert client.json[2] == {"n": 2}
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_whose_time_is_cut_short_is_ended_by_then():
    clock = task.Clock()
    clock.advance(1000)
    before, after = (Identity(7, grants=EVERYTHING, expires=expires) for expires in (2000.0, 1010.0))
    server = await Server(
        authenticator=Table({"good": before}),
        clock=clock,
        seconds=clock.seconds,
        now=clock.seconds,
        ping_interval=9999.0,
    ).start()
    client = await server.subscribed()
    server.factory.turn_over(Turnover([(before, after)]))
    clock.pump([1.0] * 13)
    assert await client.closed() == 1000
    await server.stop()
