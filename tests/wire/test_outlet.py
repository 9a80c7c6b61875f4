"""The hot path against real sockets: eager sends, the exact fallback, slices, the bounded outbox."""

import random
import time

import pytest
import pytest_twisted
from support.wires import Server, until
from twisted.internet import reactor, task

from towerbus.wire import fanout


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
