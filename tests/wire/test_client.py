"""The watcher against real servers: it comes back where it was cut off, and speaks to those that know no positions."""

import json

import pytest
import pytest_twisted
from support.deep_log import DeepLog
from support.wires import Server, until
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from towerbus.dialects.watching import Listener, Watch
from towerbus.event import event
from towerbus.wire import client
from towerbus.wire.client import NotLetInError, Watcher


class Watching:
    def __init__(self, server, *, token="good", since=None, groups=None):
        self.numbers, self.notices = [], []
        listener = Listener(lambda whole, data: self.numbers.append(json.loads(data)["n"]), self.notices.append)
        self.watch = Watch(groups or {"jobs": ["*"]}, listener, since)
        url = f"ws://127.0.0.1:{server.port.getHost().port}/websocket/"
        self.watcher = Watcher(reactor, url, token, self.watch, self.notices.append)
        self.done = Deferred.fromCoroutine(self.watcher.run())

    async def stop(self):
        self.watcher.stop()
        await self.done


def emit(server, number):
    return server.log.emit([event("jobs", "x", b'{"n":%d}' % number)])


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.05)


@pytest_twisted.ensureDeferred
async def test_it_comes_back_where_it_was_cut_off():
    server = await Server(log=DeepLog(tail_bytes=2000)).start()
    watching = Watching(server)
    await until(lambda: watching.watch.welcome)
    for number in range(60):
        await emit(server, number)
        if number % 20 == 10:
            await until(lambda number=number: number in watching.numbers)
            for wire in tuple(server.factory.wires):
                wire.transport.abortConnection()
            await until(lambda: not server.factory.wires)
    await until(lambda: 59 in watching.numbers)
    assert watching.numbers == list(range(60))
    assert [notice for notice in watching.notices if notice.startswith("watching")] == [
        "watching jobs-*",
        *["watching jobs-*, from where it was"] * 3,
    ]
    await watching.stop()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_it_begins_behind_a_position_that_is_given():
    server = await Server().start()
    for number in range(5):
        await emit(server, number)
    since = str(server.log.tail.records(server.log.tail.begin)[2].end)
    watching = Watching(server, since=since)
    await until(lambda: len(watching.numbers) == 2)
    assert watching.numbers == [3, 4]
    await watching.stop()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_that_speaks_only_tower_is_watched_as_before():
    server = await Server().start()
    server.factory.spoken = {"tower": server.factory.spoken["tower"]}
    watching = Watching(server, groups={"jobs": ["x"]})
    await until(lambda: watching.watch.welcome)
    await emit(server, 1)
    await until(lambda: watching.numbers == [1])
    for wire in tuple(server.factory.wires):
        wire.transport.abortConnection()
    await until(lambda: not server.factory.wires)
    await emit(server, 2)
    await until(lambda: watching.watch.welcome)
    await emit(server, 3)
    await until(lambda: 3 in watching.numbers)
    assert watching.numbers == [1, 3]
    await watching.stop()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_restart_is_waited_for_as_long_as_the_server_asks():
    server = await Server().start()
    watching = Watching(server)
    await until(lambda: watching.watch.welcome)
    (wire,) = server.factory.wires
    wire.restart(0.3)
    await until(lambda: len(watching.notices) == 3)
    assert watching.notices[1:] == [
        "connection lost: restarting; trying again in 0.3 s",
        "watching jobs-*, from where it was",
    ]
    await watching.stop()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_who_is_not_let_in_is_not_tried_again():
    server = await Server().start()
    watching = Watching(server, token="bad")
    with pytest.raises(NotLetInError, match="not authenticated"):
        await watching.done
    await server.stop()
