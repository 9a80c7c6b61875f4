"""The hot path against real sockets: eager sends, the exact fallback, slices, the bounded outbox."""

import random
import time

import pytest
import pytest_twisted
from support.loops import LOOPS, loop_named
from support.wires import Server, until
from twisted.internet import reactor, task

from towerbus.wire import eager, fanout
from towerbus.wire.frames import text_frame
from towerbus.wire.outlet import broadcast


@pytest.fixture(params=LOOPS, autouse=True)
def send_loop(request, monkeypatch):
    """Every test runs with the loop in C and with the one in Python."""
    monkeypatch.setattr(eager, "send_each", loop_named(request.param))


@pytest_twisted.ensureDeferred
async def test_unread_clients_get_every_byte_once_they_read_again():
    """Far more than the kernel takes (2 to 3 MB a client), paused and resumed at random, in pieces of all sizes."""
    server = await Server(outbox=64 * 1024 * 1024).start()
    dice = random.Random(7)
    clients = [await server.subscribed() for _ in range(12)]
    stuck, restless, steady = clients[:4], clients[4:8], clients[8:]
    for client in stuck:
        client.transport.pauseProducing()
    sent, waited = [], 0
    for number in range(1500):
        size = dice.choice([10, 300, 300, 5_000, 70_000])
        payload = b'{"n":%d,"x":"%s"}' % (number, bytes([97 + number % 26]) * size)
        sent.append(payload)
        await server.emit(payload)
        client = dice.choice(restless)
        if not client.transport.disconnecting:
            (client.transport.pauseProducing if dice.random() < 0.6 else client.transport.resumeProducing)()
        if number % 7 == 0:
            await task.deferLater(reactor, 0, lambda: None)
        if number % 50 == 0:
            dice.choice(clients).say({"groups": {"jobs": ["status_changed"]}})
        waited = max(waited, *(wire.outlet.waiting for wire in server.factory.wires))
    assert waited > 1024 * 1024, "the fallback was hardly reached"
    assert sum(map(len, sent)) > 10 * 1024 * 1024
    for client in clients:
        client.transport.resumeProducing()
    for client in clients:
        await until(lambda client=client: client.messages and client.messages[-1] == sent[-1])
        assert [message for message in client.messages if not message.startswith(b'{"groups_current"')] == sent
    await until(lambda: all(wire.outlet.waiting == 0 for wire in server.factory.wires))
    assert len(steady[0].messages) >= len(sent)
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_goes_back_to_eager_sends_when_it_has_caught_up():
    server = await Server(outbox=64 * 1024 * 1024).start()
    client = await server.subscribed()
    client.transport.pauseProducing()
    (wire,) = server.factory.wires
    payload = b'{"x":"%s"}' % (b"x" * 60_000)
    count = 0
    while not wire.outlet.waiting:
        await server.emit(payload)
        await task.deferLater(reactor, 0, lambda: None)
        count += 1
    client.transport.resumeProducing()
    await client.until(count)
    await until(lambda: wire.outlet._outbox is None)
    assert wire.transport.producer is None
    await server.emit(b'{"last":1}')
    await client.until(count + 1)
    assert client.messages[-1] == b'{"last":1}'
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_slow_consumer_is_closed_with_1013_and_slows_no_other():
    server = await Server(outbox=256 * 1024).start()
    slow, other = await server.subscribed(), await server.subscribed()
    slow.transport.pauseProducing()
    payloads = [b'{"n":%d,"x":"%s"}' % (n, b"x" * 20_000) for n in range(400)]
    most = 0
    for payload in payloads:
        await server.emit(payload)
        await task.deferLater(reactor, 0, lambda: None)
        most = max([most, *(wire.outlet.waiting for wire in server.factory.wires)])
    assert most <= 256 * 1024
    await other.until(len(payloads))
    assert other.messages == payloads
    assert server.factory.counts.slow_consumers == 1
    slow.transport.resumeProducing()
    assert await slow.closed() == 1013
    assert slow.messages == payloads[: len(slow.messages)], "what came before the close is whole and in order"
    assert len(slow.messages) < len(payloads)
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_slow_consumer_that_never_reads_is_let_go_in_bounded_time():
    clock = task.Clock()
    server = await Server(outbox=64 * 1024, close_timeout=5, clock=clock, seconds=clock.seconds).start()
    slow = await server.subscribed()
    slow.transport.pauseProducing()
    while not server.factory.counts.slow_consumers:
        await server.emit(b'{"x":"%s"}' % (b"x" * 60_000))
        await task.deferLater(reactor, 0, lambda: None)
    (wire,) = server.factory.wires
    assert wire.outlet.waiting < 1000, "only the close frame waits"
    clock.advance(3)
    assert server.factory.wires
    for _ in range(10):
        clock.advance(1)
    await until(lambda: not server.factory.wires)
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_replies_and_events_keep_one_order_while_slices_are_owed(monkeypatch):
    """With slices of three members, twenty members and clients that talk all the time."""
    monkeypatch.setattr(fanout, "SLICE", 3)
    server = await Server().start()
    clients = [await server.subscribed() for _ in range(20)]
    for number in range(200):
        await server.emit(b'{"n":%d}' % number)
        if number % 3 == 0:
            clients[number % 20].say({"groups": {"jobs": ["status_changed"], "schedules": [number]}})
        if number % 5 == 0:
            await task.deferLater(reactor, 0, lambda: None)
    for client in clients:
        await until(lambda client=client: b'{"n":199}' in client.messages)
        assert [m for m in client.messages if m.startswith(b'{"n"')] == [b'{"n":%d}' % n for n in range(200)]
    assert server.fanout.deliveries >= 20
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_what_was_emitted_before_a_change_goes_by_the_old_set_and_after_it_by_the_new():
    server = await Server().start()
    client = await server.subscribed({"jobs": ["a"]})
    (wire,) = server.factory.wires
    await server.emit(b'{"n":1}', ("jobs", "a"))
    await server.emit(b'{"n":2}', ("jobs", "b"))
    wire.session.received(b'{"groups":{"jobs":["b"]}}')
    await server.emit(b'{"n":3}', ("jobs", "a"))
    await server.emit(b'{"n":4}', ("jobs", "b"))
    await client.until(3)
    reply = {"groups_current": ["jobs-b"], "groups_left": ["jobs-a"], "groups_joined": ["jobs-b"]}
    assert client.json == [{"n": 1}, reply, {"n": 4}]
    await server.stop()


@pytest.mark.seconds(120)
@pytest_twisted.ensureDeferred
async def test_a_thousand_sets_that_share_one_topic_cost_one_send_each():
    server = await Server().start()
    clients = [await server.subscribed({"jobs": ["status_changed"], "job_events": [n]}) for n in range(1000)]
    for number in range(10):
        await server.emit(b'{"n":%d}' % number)
    before = server.fanout.deliveries
    for number in (0, 500, 999):
        await server.emit(b'{"own":%d}' % number, ("job_events", number))
    started = time.monotonic()
    for number, client in enumerate(clients):
        own = [b'{"own":%d}' % number] if number in (0, 500, 999) else []
        await client.until(10 + len(own))
        assert client.messages == [b'{"n":%d}' % n for n in range(10)] + own
    assert time.monotonic() - started < 60
    assert server.fanout.deliveries - before == 1000, "ten events of one turn are one send for each client"
    await server.stop()


def frame_of(size, letter):
    return text_frame(b'{"x":"%s"}' % (letter * size))


def outlet_of(server, client):
    """The server's side of a client."""
    port = client.transport.getHost().port
    (wire,) = [wire for wire in server.factory.wires if wire.transport.getPeer().port == port]
    return wire.outlet


@pytest_twisted.ensureDeferred
async def test_whatever_an_overflow_leads_to_a_cut_frame_is_not_cut_into():
    """One client overflows, and what follows from it writes to others, of which the kernel has just taken a part."""
    server = await Server(outbox=1024).start()
    clients = [await server.subscribed() for _ in range(3)]
    for client in clients:
        client.transport.pauseProducing()
    outlets = [outlet_of(server, client) for client in clients]
    last = text_frame(b'{"last":1}')
    outlets[1]._overflowed = lambda: [outlets[0].write(last), outlets[2].write(last)]
    outlets[0]._limit = outlets[2]._limit = 1024 * 1024
    big = 8 * 1024 * 1024
    broadcast([outlets[1]], frame_of(big, b"a"))
    broadcast([outlets[1]], frame_of(1000, b"b"))
    assert outlets[1].waiting
    broadcast(outlets, frame_of(big, b"c"))
    assert all(outlet.waiting for outlet in outlets)
    for client in clients:
        client.transport.resumeProducing()
    for client in (clients[0], clients[2]):
        await client.until(2)
        assert [len(message) for message in client.messages] == [big + 8, 10]
    await clients[1].until(2)
    assert [len(message) for message in clients[1].messages] == [big + 8, 1008]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_who_goes_while_others_are_seen_to_gets_nothing_more():
    """An overflow closes another connection of the same cohort, of which a part was just sent."""
    server = await Server(outbox=1024).start()
    full, other = await server.subscribed(), await server.subscribed()
    for client in (full, other):
        client.transport.pauseProducing()
    outlets = [outlet_of(server, full), outlet_of(server, other)]
    outlets[0]._overflowed = outlets[1].closed
    broadcast(outlets[:1], frame_of(8 * 1024 * 1024, b"a"))
    broadcast(outlets[:1], frame_of(1000, b"b"))
    broadcast(outlets, frame_of(8 * 1024 * 1024, b"c"))
    assert outlets[1].eager is None
    broadcast(outlets[1:], b"x" * 1000)
    broadcast(outlets[1:], b"x" * 1000)
    assert not outlets[1].waiting
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_what_is_sent_to_all_while_a_connection_holds_keeps_its_place():
    server = await Server().start()
    held, other = await server.subscribed(), await server.subscribed()
    outlets = [outlet_of(server, held), outlet_of(server, other)]
    release = outlets[0].hold()
    outlets[0].write(text_frame(b'{"n":1}'))
    broadcast(outlets, text_frame(b'{"n":2}'))
    outlets[0].write(text_frame(b'{"n":3}'))
    await other.until(1)
    assert not held.messages
    release()
    assert outlets[0].eager is not None
    await held.until(3)
    assert held.json == [{"n": 1}, {"n": 2}, {"n": 3}]
    release = outlets[0].hold()
    outlets[0].write(text_frame(b'{"n":4}'))
    outlets[0].closed()
    release()
    assert outlets[0].eager is None
    await server.stop()


@pytest.mark.parametrize("how", ["lost", "aborted", "closed by us"])
@pytest_twisted.ensureDeferred
async def test_a_closed_connection_is_never_written_to(how):
    """Whatever takes its number next is not the outlet's business."""
    server = await Server().start()
    client, other = await server.subscribed(), await server.subscribed()
    outlet, stays = outlet_of(server, client), outlet_of(server, other)
    (wire,) = [wire for wire in server.factory.wires if wire.outlet is outlet]
    if how == "lost":
        client.transport.abortConnection()
    elif how == "aborted":
        wire.transport.abortConnection()
    else:
        wire.close(1000, "")
    cohort = [outlet, stays]
    number = 0
    while wire in server.factory.wires:
        broadcast(cohort, text_frame(b'{"n":%d}' % number))
        number += 1
        await task.deferLater(reactor, 0, lambda: None)
    assert outlet.eager is None
    strangers = [await server.subscribed() for _ in range(3)]
    broadcast(cohort, text_frame(b'{"last":1}'))
    await other.until(number + 1)
    assert other.json == [{"n": n} for n in range(number)] + [{"last": 1}]
    await server.emit(b'{"all":1}')
    for stranger in strangers:
        await stranger.until(1)
        assert stranger.json == [{"all": 1}]
    await server.stop()
