"""The dialect `towerbus.v1` over real connections: coming back without a seam, notices, and how sessions end."""

import json
import random
import time

import pytest
import pytest_twisted
from support.deep_log import DeepLog
from support.v1 import V1, V1Client
from support.wanderers import turns, wander
from support.wires import EVERYTHING, Server, Table, until
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from websockets.sync.client import connect

from towerbus import positions
from towerbus.access import AccessRules, Grants, Identity, Rule, Who
from towerbus.auth.interface import NotNow
from towerbus.catchup.limits import Limits
from towerbus.event import event
from towerbus.log.sqlite import SqliteLog
from towerbus.wire import factory as factory_module

JOBS = {"jobs": ["status_changed"]}


def emit(server, *numbers, topic=("jobs", "status_changed"), size=0):
    """Events of one record with these numbers."""
    return server.log.emit([event(*topic, b'{"n":%d,"x":"%s"}' % (number, b"x" * size)) for number in numbers])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("towerbus.v1", "towerbus.v1"),
        ("towerbus.v1, bearer.good", "towerbus.v1"),
        ("bearer.good, towerbus.v1", "towerbus.v1"),
        ("towerbus.v1, tower", "towerbus.v1"),
        ("tower, towerbus.v1", "tower"),
        ("towerbus.v2, towerbus.v1", "towerbus.v1"),
        ("towerbus.v2", None),
        ("bearer.good", None),
        (None, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_clients_order_chooses_the_dialect(offered, chosen):
    server = await Server().start()
    client = await server.client(headers=[f"Sec-WebSocket-Protocol: {offered}"] if offered else [])
    assert f"Sec-WebSocket-Protocol: {chosen}\r\n" in client.head + "\r\n" or chosen is None
    assert ("Sec-WebSocket-Protocol" in client.head) == (chosen is not None)
    client.say({"groups": JOBS})
    await client.until(2)
    assert client.json[0] == {"accept": True, "user": 7}
    assert ("position" in client.json[1]) == (chosen == "towerbus.v1")
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_events_have_their_address_place_and_time_and_the_payloads_bytes():
    server = await Server().start()
    client = await server.client(headers=V1)
    client.say({"groups": {"job_events": [42]}})
    await client.until(2)
    payload = '{ "counter" : 1.50, "stdout":"ä\\u00e9" }'.encode()
    await server.log.emit([event("job_events", 42, payload, id="e-1", at=1767225600.25)])
    await client.until(3)
    position = str(server.log.tail.end)
    assert client.messages[2] == (
        b'{"group":"job_events","type":"42","position":"%s","id":"e-1","time":1767225600.25,"data":%s}'
        % (position.encode(), payload)
    )
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_both_dialects_hear_the_same_events_each_written_once():
    server = await Server().start()
    tower = await server.subscribed()
    v1 = await V1Client(server, JOBS).connect()
    await v1.live()
    for number in range(50):
        await emit(server, number)
    await tower.until(50)
    await until(lambda: len(v1.numbers()) == 50)
    assert v1.numbers() == [message["n"] for message in tower.json] == list(range(50))
    await server.stop()


# Coming back


def logs():
    yield "memory", lambda path: None
    yield "deep", lambda path: DeepLog(tail_bytes=3000)
    yield (
        "sqlite",
        lambda path: SqliteLog(str(path / "log.db"), reactor, max_bytes=10**7, max_age=3600, tail_bytes=3000),
    )


@pytest.fixture(params=list(logs()), ids=lambda each: each[0])
def make_log(request, tmp_path):
    return lambda: request.param[1](tmp_path)


async def started(log, **given):
    server = Server(log=log, **given)
    if isinstance(server.log, SqliteLog):
        server.log.startService()
    return await server.start()


async def stopped(server):
    await server.stop()
    if isinstance(server.log, SqliteLog):
        await server.log.stopService()


@pytest_twisted.ensureDeferred
async def test_who_comes_back_gets_exactly_what_was_missed(make_log):
    server = await started(make_log())
    client = await V1Client(server, JOBS).connect()
    await client.live()
    await emit(server, *range(5))
    await until(lambda: len(client.numbers()) == 5)
    client.drop()
    for number in range(5, 300):
        await emit(server, number)
        await emit(server, -number, topic=("jobs", "summary"))
    await client.connect(id="back")
    await client.live(2)
    assert client.replies[1]["recovered"] is True
    assert client.replies[1]["position"] == client.events[4][2]
    assert client.replies[1]["id"] == "back"
    await emit(server, 300)
    await until(lambda: 300 in client.numbers())
    assert client.numbers() == list(range(301))
    assert client.notices == [{"position": client.notices[0]["position"]}]
    await stopped(server)


@pytest_twisted.ensureDeferred
async def test_a_position_inside_a_record_is_good(make_log):
    server = await started(make_log())
    client = await V1Client(server, JOBS).connect()
    await client.live()
    for number in range(0, 400, 20):
        await emit(server, *range(number, number + 20))
    await until(lambda: len(client.numbers()) == 400)
    for _, number, position in random.Random(1).sample(client.events, 12):
        back = await V1Client(server, JOBS).connect(since=position)
        await back.live()
        assert back.numbers() == list(range(number + 1, 400))
    await stopped(server)


@pytest.mark.seconds(120)
@pytest.mark.parametrize("seed", [1, 2])
@pytest_twisted.ensureDeferred
async def test_everybody_gets_every_event_once_and_in_order_whatever_they_do(make_log, seed):
    server = await started(make_log(), outbox=64 * 1024)
    await wander(server, seed, 15, 3)
    await stopped(server)


@pytest.mark.seconds(120)
@pytest_twisted.ensureDeferred
async def test_a_crowd_that_comes_back_at_once_shares_a_few_readings():
    log = DeepLog(tail_bytes=20_000)
    server = await Server(log=log).start()
    first = await V1Client(server, JOBS).connect()
    await first.live()
    for number in range(100):
        await emit(server, number)
    await until(lambda: len(first.numbers()) == 100)
    for number in range(100, 400):
        await emit(server, number)
    dice = random.Random(3)
    crowd = []
    for _ in range(2000):
        since = dice.randrange(100)
        client = V1Client(server, JOBS)
        client.position = first.events[since][2]
        crowd.append((client, since))
    wires = [await server.client(headers=V1) for _ in crowd]
    for (client, _), wire in zip(crowd, wires, strict=True):
        client.wire = wire
        client.wish(JOBS, since=client.position)
    before = time.monotonic()
    for client, since in crowd:
        await client.live()
        assert client.numbers() == list(range(since + 1, 400))
    print({"replays": log.replays, "seconds": time.monotonic() - before})
    assert log.replays <= 8
    assert log.open == []
    await server.stop()


@pytest.mark.seconds(120)
@pytest.mark.parametrize("tail_bytes", [10**8, 10**6])
@pytest_twisted.ensureDeferred
async def test_a_client_that_is_far_behind_is_not_closed_as_slow(tail_bytes):
    server = await Server(log=DeepLog(tail_bytes=tail_bytes, piece=50), outbox=256 * 1024).start()
    client = await V1Client(server, JOBS).connect()
    await client.live()
    client.drop()
    await until(lambda: not server.factory.wires)
    for number in range(0, 30_000, 100):
        await emit(server, *range(number, number + 100), size=300)
    await client.connect()
    await client.replied(2)
    client.wire.transport.pauseProducing()
    most = 0
    for step in range(400):
        (client.wire.transport.pauseProducing if step % 4 else client.wire.transport.resumeProducing)()
        await emit(server, 30_000 + step, size=300)
        await turns(1)
        most = max([most, *(wire.waiting for wire in server.factory.wires)])
    client.wire.transport.resumeProducing()
    await client.live(2)
    await until(lambda: len(client.numbers()) >= 30_400)
    assert client.numbers() == list(range(30_400))
    assert server.factory.counts.slow_consumers == 0
    assert most <= 256 * 1024
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_slow_consumer_is_closed_with_4408_and_fetches_the_rest_by_position():
    server = await Server(outbox=64 * 1024).start()
    client = await V1Client(server, JOBS).connect()
    await client.live()
    client.wire.transport.pauseProducing()
    number = 0
    while not server.factory.counts.slow_consumers:
        await emit(server, number, size=30_000)
        number += 1
        await turns(1)
    for more in range(number, number + 5):
        await emit(server, more)
    client.wire.transport.resumeProducing()
    await until(lambda: client.lost)
    assert client.wire.close_code == 4408
    got = client.numbers()
    assert got == list(range(len(got))), "what came before the close is whole"
    assert len(got) < number
    await client.connect()
    await client.live(2)
    assert client.numbers() == list(range(number + 5))
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_nothing_follows_what_did_not_fit(monkeypatch):
    """A client that overflows while slices are owed to it gets a beginning of its events, and no hole."""
    monkeypatch.setattr("towerbus.wire.fanout.SLICE", 2)
    server = await Server(outbox=64 * 1024).start()
    clients = [await V1Client(server, JOBS).connect() for _ in range(8)]
    for client in clients:
        await client.live()
        client.wire.transport.pauseProducing()
    number = 0
    while server.factory.counts.slow_consumers < 8:
        await emit(server, number, size=random.Random(number).choice([100, 30_000, 70_000]))
        if number % 3:
            await turns(1)
        if number % 5 == 0:
            for wire in tuple(server.factory.wires):
                if wire.is_in:
                    wire.session.received(json.dumps({"groups": JOBS}).encode())
        number += 1
    await emit(server, number)
    for client in clients:
        client.wished = [{}] * 10_000
        client.wire.transport.resumeProducing()
        await until(lambda client=client: client.lost)
        assert client.numbers() == list(range(len(client.numbers())))
        await client.connect()
        await client.live(len(client.replies) + 1)
        assert client.numbers() == list(range(number + 1))
    await server.stop()


@pytest.mark.parametrize("wish", [{"groups": {"jobs": ["x"]}}, {"groups": {"jobs": ["x"]}, "since": "0a-1-1-1"}])
@pytest_twisted.ensureDeferred
async def test_a_client_that_overflows_by_what_came_before_its_message_leaves_nothing_behind(wish):
    server = await Server(outbox=64 * 1024).start()
    client = await V1Client(server, JOBS).connect()
    await client.live()
    client.wire.transport.pauseProducing()
    (wire,) = server.factory.wires
    number = 0
    while wire.waiting < 40_000:
        await emit(server, number, size=10_000)
        number += 1
        await turns(4)
    await emit(server, number, size=50_000)
    assert not server.factory.counts.slow_consumers, "it is gathered"
    wire.session.received(json.dumps(wish).encode())
    assert server.factory.counts.slow_consumers == 1
    client.wire.transport.resumeProducing()
    await until(lambda: client.lost)
    assert client.wire.close_code == 4408
    assert client.numbers() == list(range(len(client.numbers())))
    assert client.replies[1:] == []
    assert server.v1_lane.topics == 0
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_nothing_follows_what_did_not_fit_when_the_session_ends_for_another_reason(monkeypatch):
    """It overflows by what it is owed while it is being ended: a small event that would fit must not follow."""
    monkeypatch.setattr("towerbus.wire.fanout.SLICE", 2)
    server = await Server(outbox=64 * 1024).start()
    clients = [await V1Client(server, JOBS).connect() for _ in range(6)]
    for client in clients:
        await client.live()
        client.wire.transport.pauseProducing()
    number = 0
    while not all(wire.waiting > 30_000 for wire in server.factory.wires):
        await emit(server, number, size=10_000)
        number += 1
        await turns(8)
    assert not server.factory.counts.slow_consumers
    for size in (40_000, 10):
        await emit(server, number, size=size)
        server.fanout.flush()
        number += 1
    for wire in tuple(server.factory.wires):
        wire.expired()
    for client in clients:
        client.wire.transport.resumeProducing()
        await until(lambda client=client: client.lost)
        got = client.numbers()
        assert got == list(range(len(got)))
    assert server.factory.counts.slow_consumers > 0
    await server.stop()


# Positions that are not there


@pytest_twisted.ensureDeferred
async def test_a_position_that_is_not_there_is_not_recovered_and_the_rest_follows():
    log = DeepLog(tail_bytes=2000)
    server = await Server(log=log, limits=Limits(grace=0.1)).start()
    first = await V1Client(server, JOBS).connect()
    await first.live()
    for number in range(50):
        await emit(server, number)
    await until(lambda: len(first.numbers()) == 50)
    place = positions.parse(first.events[10][2])
    log.let_go(20)
    end, begin = str(log.tail.end), str(log.begin)
    for since, until_, words, rest in [
        (place, begin, "let go", range(20, 50)),
        (place._replace(epoch="abc"), str(log.tail.begin), "another", None),
        (place._replace(offset=10**6), end, "past the end", ()),
        (place._replace(offset=log.records[-2].offset, place=7), end, "not in the log", ()),
    ]:
        client = await V1Client(server, JOBS).connect(since=str(since))
        reply = await client.replied()
        assert reply["recovered"] is False
        assert reply["lost"]["from"] == str(since)
        assert reply["lost"]["to"] == reply["position"] == until_
        assert words in reply["lost"]["reason"]
        await client.live()
        if rest is not None:
            assert client.numbers() == list(rest)
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_what_retention_takes_on_the_way_is_told_as_a_gap(monkeypatch):
    monkeypatch.setattr("towerbus.catchup.shared.EVENTS", 5)
    log = DeepLog(tail_bytes=2000, piece=5)
    server = await Server(log=log).start()
    first = await V1Client(server, JOBS).connect()
    await first.live()
    for number in range(100):
        await emit(server, number)
    await until(lambda: len(first.numbers()) == 100)
    log.held = []
    client = await V1Client(server, JOBS).connect(since=first.events[0][2])
    while len(client.numbers()) < 10:
        if log.held:
            log.release()
        await turns(1)
    log.let_go(60)
    log.answer_at_once()
    gap = await client.told("gap")
    await client.live()
    got = client.numbers()
    assert gap == {
        "from": first.events[got.index(60)][2],
        "to": first.events[59][2],
        "reason": "the log has let go of it",
    }
    assert got == [*range(1, got.index(60) + 1), *range(60, 100)]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_log_that_stays_away_sends_the_client_back():
    log = DeepLog(tail_bytes=2000)
    server = await Server(log=log, limits=Limits(patience=0.2)).start()
    first = await V1Client(server, JOBS).connect()
    await first.live()
    for number in range(50):
        await emit(server, number)
    await until(lambda: len(first.numbers()) == 50)
    log.away = True
    client = await V1Client(server, JOBS).connect(since=first.events[0][2])
    await until(lambda: client.lost)
    assert client.wire.close_code == 1013
    assert client.wire.json[-1]["code"] == "unavailable"
    assert client.replies == []
    await server.stop()


# Whole groups

RULES = AccessRules(
    [
        Rule(("jobs",), Who.NOBODY, ("secret",)),
        Rule(("jobs",), Who.EVERYONE),
        Rule(("control",), Who.OWN),
        Rule(("job_events",), Who.ASK),
        Rule(("*",), Who.GRANTED),
    ],
    ask=True,
)
SECRETS = {
    "7": Identity(7),
    "8": Identity(8, grants=Grants(("job_events/42", "metrics/*"))),
    "all": Identity(9, grants=EVERYTHING),
}


@pytest_twisted.ensureDeferred
async def test_a_whole_group_is_what_each_identity_may_see_now_and_when_it_comes_back():
    server = await Server(authenticator=Table(SECRETS), rules=RULES, log=DeepLog(tail_bytes=2000)).start()
    groups = {group: ["*"] for group in ("jobs", "control", "job_events", "metrics", "other")}
    clients = {}
    for secret in SECRETS:
        wire = await server.client(f"/websocket/?token={secret}", headers=V1)
        wire.say({"groups": groups})
        await wire.until(2)
        clients[secret] = wire
    denied = {"7": ["job_events-*", "metrics-*", "other-*"], "8": ["other-*"], "all": []}
    assert {secret: wire.json[1]["groups_denied"] for secret, wire in clients.items()} == denied
    topics = [
        ("jobs", "status_changed"), ("jobs", "secret"), ("jobs", "new"), ("control", "limit_reached_7"), ("control", "limit_reached_8"),
        ("job_events", "42"), ("job_events", "43"), ("metrics", "cpu"), ("other", "x"),
    ]  # fmt: skip
    begin = str(server.log.tail.end)
    for _ in range(10):
        for number, topic in enumerate(topics):
            await emit(server, number, topic=topic)
    expected = {"7": [0, 2, 3], "8": [0, 2, 4, 5, 7], "all": [0, 2, 3, 4, 5, 6, 7, 8]}
    for secret, wire in clients.items():
        await wire.until(2 + 10 * len(expected[secret]))
        assert [message["data"]["n"] for message in wire.json[2:]] == expected[secret] * 10
        back = await server.client(f"/websocket/?token={secret}", headers=V1)
        back.say({"groups": groups, "since": begin})
        await back.until(3 + 10 * len(expected[secret]))
        assert [message["data"]["n"] for message in back.json[2:-1]] == expected[secret] * 10
    await server.stop()


# Notices


async def one_of_each(server, **given):
    tower = await server.subscribed(**given)
    v1 = await V1Client(server, JOBS).connect()
    await v1.live()
    return tower, v1


@pytest_twisted.ensureDeferred
async def test_what_the_server_has_lost_is_told_before_what_comes_after_or_ends_the_session(monkeypatch):
    monkeypatch.setattr("towerbus.wire.fanout.SLICE", 2)
    monkeypatch.setattr(factory_module, "SLICE", 2)
    log = DeepLog()
    server = await Server(log=log).start()
    pairs = [await one_of_each(server) for _ in range(6)]
    idle_tower, idle_v1 = await server.client(), await server.client(headers=V1)
    await emit(server, 1)
    before = str(log.tail.end)
    log.lose([event("jobs", "status_changed", b'{"n":2}')])
    after = str(log.tail.end)
    await emit(server, 3)
    gap = {"gap": {"from": before, "to": after, "reason": "retention overtook the reader"}}
    for tower, v1 in pairs:
        assert await tower.closed() == 1012
        await until(lambda v1=v1: 3 in v1.numbers())
        assert [message.get("data", {}).get("n", message.get("gap")) for message in v1.wire.json[2:]] == [
            1,
            gap["gap"],
            3,
        ]
    await idle_v1.until(2)
    assert idle_v1.json[1] == gap
    assert not idle_tower.lost, "it has lost nothing"
    client = await V1Client(server, JOBS).connect(since=before)
    assert (await client.replied())["lost"]["to"] == after
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_staleness_is_told_to_all_and_to_those_who_come():
    server = await Server().start()
    tower, v1 = await one_of_each(server)
    server.factory.stale(1767225600.5)
    assert await v1.told("stale") == {"since": 1767225600.5}
    late = await V1Client(server, JOBS).connect()
    await late.live()
    assert [next(iter(message)) for message in late.wire.json] == ["accept", "stale", "groups_current"]
    server.factory.fresh()
    server.factory.fresh()
    await until(lambda: v1.take() or v1.notices[-1] == {"stale": False})
    await until(lambda: late.take() or late.notices[-1] == {"stale": False})
    assert [notice for notice in v1.notices if "stale" in notice] == [
        {"stale": {"since": 1767225600.5}},
        {"stale": False},
    ]
    newest = await V1Client(server, JOBS).connect()
    await newest.live()
    assert newest.notices == []
    assert tower.messages == []
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_quiet_client_is_told_the_position_with_its_pings():
    clock = task.Clock()
    server = await Server(ping_interval=10, clock=clock, seconds=clock.seconds).start()
    client, catching = await V1Client(server, JOBS).connect(), await server.client(headers=V1)
    await client.live()
    begin = client.position

    async def ping():
        pings = client.wire.pings
        while client.wire.pings == pings:
            clock.advance(1)
            await turns()
        await turns()

    await ping()
    await ping()
    assert client.notices == [], "nothing has happened"
    await emit(server, 1, topic=("schedules", "changed"))
    server.catchup._served = lambda member: None
    catching.say({"groups": JOBS, "since": begin})
    await ping()
    await until(lambda: client.take() or client.notices)
    assert client.notices == [{"position": str(server.log.tail.end)}]
    assert client.position != begin
    await ping()
    assert len(client.notices) == 1
    assert catching.pings >= 1
    assert len(catching.messages) == 1, "who catches up is not told how far others are"
    await server.stop()


# Ends


@pytest.mark.parametrize(
    ("secret", "code", "word"), [("bad", 4401, "not_authenticated"), ("away", 1013, "unavailable")]
)
@pytest_twisted.ensureDeferred
async def test_who_does_not_get_in_is_told_why(secret, code, word):
    server = await Server(authenticator=Table({"away": NotNow("away")})).start()
    client = await server.client(f"/websocket/?token={secret}", headers=V1)
    assert await client.closed() == code
    (message,) = client.json
    assert message["code"] == word
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_an_identity_that_expires_ends_with_4401():
    clock = task.Clock()
    clock.advance(1000)
    identity = Identity(7, expires=1005.0)
    server = await Server(
        authenticator=Table({"good": identity}), clock=clock, seconds=clock.seconds, now=clock.seconds
    ).start()
    client = await V1Client(server, JOBS).connect()
    await client.live()
    clock.pump([1] * 8)
    await until(lambda: client.lost)
    assert client.wire.close_code == 4401
    assert client.wire.json[-1]["code"] == "not_authenticated"
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_abuse_and_size_close_with_their_codes():
    server = await Server().start()
    rude, large = await server.client(headers=V1), await server.client(headers=V1)
    for _ in range(30):
        rude.say(b"nonsense")
    large.frame(1, b"x" * 65_537)
    assert await rude.closed() == 1008
    assert {message["code"] for message in rude.json[1:]} == {"malformed"}
    assert await large.closed() == 1009
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_nothing_is_sent_behind_the_close_that_follows_a_fault_of_ours(monkeypatch, logged_failures):
    server = await Server().start()
    client = await V1Client(server, JOBS).connect()
    await client.live()
    (wire,) = server.factory.wires
    wire.session._dialect = None
    client.wish({})
    await until(lambda: logged_failures)
    await emit(server, 1)
    await until(lambda: client.lost)
    assert client.wire.close_code == 1011
    assert client.numbers() == []
    logged_failures.clear()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_frames_that_arrive_while_it_asks_and_resumes_keep_their_order():
    class Slow:
        def allowed(self, identity, topics):
            self.answer = Deferred()
            return self.answer

    oracle = Slow()
    server = await Server(authenticator=Table({"good": Identity(7)}), oracle=oracle).start()
    client = await server.client(headers=V1)
    await client.until(1)
    since = str(server.log.tail.end)
    await emit(server, 1, topic=("job_events", 1))
    client.say({"groups": {"job_events": [1]}, "since": since, "id": 1})
    client.say({"groups": {"job_events": [1], "jobs": ["x"]}, "id": 2})
    client.say({"groups": {}, "id": 3})
    await until(lambda: hasattr(oracle, "answer"))
    oracle.answer.callback(frozenset({event("job_events", 1, b'{"n":1}').topic}))
    await until(lambda: server.factory.wires and next(iter(server.factory.wires)).session.state.name == "ASKING")
    oracle.answer.callback(frozenset({event("job_events", 1, b'{"n":1}').topic}))
    await client.until(6)
    shown = [message.get("id") or message.get("data") or next(iter(message)) for message in client.json[1:]]
    assert shown[0] == 1
    assert shown[1] != 2
    assert [message["id"] for message in client.json if "groups_current" in message] == [1, 2, 3]
    await server.stop()


# Another's client


@pytest_twisted.ensureDeferred
async def test_a_third_party_client_comes_back_without_a_seam():
    server = await Server(log=DeepLog(tail_bytes=2000)).start()
    url = f"ws://127.0.0.1:{server.port.getHost().port}/websocket/?token=good"

    def talk(groups, count):
        with connect(url, subprotocols=["towerbus.v1"]) as client:
            assert client.subprotocol == "towerbus.v1"
            assert json.loads(client.recv())["accept"]
            client.send(json.dumps(groups))
            messages = []
            while len(messages) < count:
                messages.append(json.loads(client.recv(timeout=20)))
        return messages

    first = deferToThread(talk, {"groups": JOBS}, 3)
    await until(lambda: server.v1_lane.topics)
    await emit(server, 1, 2)
    _, *events = await first
    assert [message["data"]["n"] for message in events] == [1, 2]
    for number in range(3, 60):
        await emit(server, number)
    second = await deferToThread(talk, {"groups": JOBS, "since": events[0]["position"]}, 60)
    assert second[0]["recovered"] is True
    assert [message["data"]["n"] for message in second[1:-1]] == list(range(2, 60))
    assert second[-1].keys() == {"position"}
    await server.stop()
