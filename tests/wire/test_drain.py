"""A server that stops lets go of its clients: nobody is told nothing, and it ends in bounded time."""

import pytest_twisted
from support.v1 import V1, V1Client
from support.wires import Server, until
from twisted.internet import reactor, task

from towerbus.event import event
from towerbus.ops.drain import LEAST, Drain

JOBS = {"jobs": ["x"]}


async def turns(count=50):
    for _ in range(count):
        await task.deferLater(reactor, 0.002, lambda: None)


async def clients_of(server, count, **given):
    made = [await server.client(**given) for _ in range(count)]
    for each in made:
        await each.until(1)
    return made


@pytest_twisted.ensureDeferred
async def test_v1_clients_are_told_at_once_to_come_back_within_the_spread():
    server, clock = await Server().start(), task.Clock()
    clients = await clients_of(server, 40, headers=V1)
    ended = Drain(clock, server.factory, 30).stopService()
    for client in clients:
        assert await client.closed() == 1012
    pauses = [client.json[-1]["reconnect"]["after"] for client in clients]
    assert min(pauses) < 10
    assert max(pauses) > 20
    assert all(0 <= pause <= 30 for pause in pauses)
    clock.advance(0.1)
    assert ended.called, "nobody is left to wait for"
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_those_that_can_not_be_told_go_in_groups_over_the_spread():
    server, clock = await Server().start(), task.Clock()
    clients = await clients_of(server, 100)
    ended = Drain(clock, server.factory, 0.9).stopService()
    left = []
    for _ in range(11):
        await turns()
        left.append(sum(not client.lost for client in clients))
        clock.advance(0.1)
    assert left[0] == 100 - LEAST
    assert 45 <= left[4] <= 55
    assert left[-1] == 0
    assert {client.close_code for client in clients} == {1012}
    assert ended.called
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_events_go_on_until_a_client_is_let_go_of():
    server, clock = await Server().start(), task.Clock()
    clients = [await server.subscribed(JOBS) for _ in range(2 * LEAST)]
    ended = Drain(clock, server.factory, 0.1).stopService()
    await until(lambda: sum(client.lost for client in clients) == LEAST)
    await server.emit(b'{"n":1}', ("jobs", "x"))
    staying = [client for client in clients if not client.lost]
    for client in staying:
        await client.until(1)
        assert client.json == [{"n": 1}]
    for _ in range(3):
        clock.advance(0.1)
        await turns()
    assert ended.called
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_who_comes_in_meanwhile_is_sent_on():
    server, clock = await Server().start(), task.Clock()
    early = await server.client(handshake=False)
    await until(lambda: server.factory.wires)
    ended = Drain(clock, server.factory, 5).stopService()
    clock.advance(0.1)
    early.shake_hands("/websocket/?token=good", V1)
    await early.until(1)
    clock.advance(0.1)
    assert await early.closed() == 1012
    assert "reconnect" in early.json[-1]
    clock.advance(0.1)
    assert ended.called
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_who_does_not_answer_is_cut_off():
    server, clock = await Server().start(), task.Clock()
    (dumb,) = await clients_of(server, 1)
    silent = await server.client(handshake=False)
    await until(lambda: len(server.factory.wires) == 2)
    dumb.answers_close = False
    ended = Drain(clock, server.factory, 1, patience=2).stopService()
    for _ in range(29):
        clock.advance(0.1)
    assert not ended.called
    for _ in range(4):
        clock.advance(0.1)
    await until(lambda: dumb.lost and silent.lost)
    clock.advance(0.1)
    assert ended.called
    assert dumb.close_code == 1012
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_comes_back_with_what_happened_meanwhile():
    server = await Server().start()
    client = await V1Client(server, JOBS).connect()
    await client.live()
    await server.log.emit([event("jobs", "x", b'{"n":1}')])
    await Drain(reactor, server.factory, 0).stopService()
    await server.log.emit([event("jobs", "x", b'{"n":2}')])
    assert client.numbers() == [1]
    await client.connect()
    await client.live(2)
    assert client.numbers() == [1, 2]
    assert client.replies[-1]["recovered"] is True
    await server.stop()
