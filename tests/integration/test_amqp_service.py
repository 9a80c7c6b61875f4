"""What keeps a session: it comes back, waits longer each time, says why there is none, and stops in every state."""

import re
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from pika import BasicProperties
from support.intakes import connections
from support.peers import peer
from support.wires import until
from twisted.internet import defer, reactor
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent

from towerbus.amqp.errors import Mismatch
from towerbus.amqp.service import LONGEST_PAUSE, AmqpService, State
from towerbus.amqp.url import parse


class Kept:
    """A service, and what became of its sessions."""

    def __init__(self, url, session=None, **given):
        self.connections, self.cancelled, self.states = [], 0, []
        self._then = session
        self.service = AmqpService(parse(url), "test", reactor, self._session, **given)
        self.service.changed = lambda: self.states.append(self.service.state)

    async def _session(self, connection, established):
        self.connections.append(connection)
        try:
            if self._then is not None:
                await self._then(connection, established)
            else:
                established()
                await defer.Deferred()
        except defer.CancelledError:
            self.cancelled += 1
            raise

    async def established(self, times=1):
        await until(lambda: self.service.state is State.ESTABLISHED and len(self.connections) == times)


@asynccontextmanager
async def kept(url, session=None, **given):
    made = Kept(url, session, **given)
    made.service.startService()
    try:
        yield made
    finally:
        await made.service.stopService()
        assert made.service.state is State.STOPPED


def pauses(logs):
    """The pauses that the log speaks of, in seconds."""
    texts = [formatEvent(event) for event in logs]
    return [float(found[1]) for text in texts if (found := re.search(r"trying again in (\S+) s", text))]


@pytest_twisted.ensureDeferred
async def test_a_session_is_established_lost_and_comes_back(own_broker):
    async with kept(own_broker.vhost()) as made:
        assert made.service.trouble == "not connected yet"
        await made.established()
        assert made.service.trouble == ""
        await deferToThread(own_broker.kill)
        await until(lambda: made.service.state is not State.ESTABLISHED)
        assert made.cancelled == 1
        await until(lambda: made.service.trouble)
        await deferToThread(own_broker.start)
        await made.established(2)
        assert (made.service.reconnects, made.service.trouble) == (1, "")
    assert made.states[:3] == [State.CONNECTING, State.ESTABLISHED, State.WAITING]


@pytest_twisted.ensureDeferred
async def test_it_waits_longer_each_time_and_never_too_long():
    with capturedLogs() as logs:
        async with kept("amqp://u:secret@127.0.0.1:9") as made:
            await until(lambda: len(pauses(logs)) > 6, 60)
            assert "refused" in made.service.trouble
    found = pauses(logs)
    # Each is drawn from the upper half of what it may be.
    assert all(
        0.05 * 1.6**n - 0.06 <= pause <= min(LONGEST_PAUSE, 0.1 * 1.6**n) + 0.06 for n, pause in enumerate(found)
    )
    assert "secret" not in "".join(map(formatEvent, logs))
    assert len([event for event in logs if event["log_format"].startswith("amqp_lost")]) == 1, "the same, once"


@pytest_twisted.ensureDeferred
async def test_whoever_is_told_of_changes_can_not_end_it(vhost, logged_failures):
    async with kept(vhost) as made:
        await made.established()
        made.service.changed = lambda: 1 / 0
        made.connections[0].transport.abortConnection()
        await made.established(2)
        assert logged_failures.pop().check(ZeroDivisionError)
        logged_failures.clear()
        made.service.changed = None


@pytest_twisted.ensureDeferred
async def test_an_established_session_begins_with_short_pauses_again(vhost, broker):
    async def brief(connection, established):
        established()

    with capturedLogs() as logs:
        async with kept(vhost, brief) as made:
            await until(lambda: made.service.reconnects > 3)
            assert made.service.trouble
    assert max(pauses(logs)) <= 0.16
    assert "the session ended" in formatEvent(
        next(event for event in logs if event["log_format"].startswith("amqp_lost"))
    )
    await until(lambda: not connections(broker, vhost))


@pytest_twisted.ensureDeferred
async def test_a_session_that_fails_ends_its_connection_and_is_told(vhost, broker):
    async def faulty(connection, established):
        raise ValueError("a fault of ours")

    async with kept(vhost, faulty) as made:
        await until(lambda: len(made.connections) > 2)
        assert "a fault of ours" in made.service.trouble
        assert made.connections[0].reason is not None
        assert made.service.reconnects == 0, "it never was established"


@pytest_twisted.ensureDeferred
async def test_a_vital_channel_that_the_broker_closes_ends_the_session(vhost):
    async def asking(connection, established):
        channel = await connection.channel()
        await channel.confirm()
        established()
        channel.publish("nowhere", "x", b"x", BasicProperties()).addErrback(lambda _: None)
        await defer.Deferred()

    async with kept(vhost, asking) as made:
        await until(lambda: len(made.connections) > 1)
        assert made.cancelled >= 1
        assert "no exchange 'nowhere'" in made.service.trouble or made.service.state is not State.WAITING


@pytest_twisted.ensureDeferred
async def test_refusals_are_told_at_once_and_tried_again(vhost):
    told = []
    async with kept(vhost.replace("tb:tb@", "tb:secret@"), refused=told.append) as made:
        await until(lambda: len(told) > 1)
        assert "password" in made.service.trouble
    assert all("secret" not in text for text in told)
    assert made.connections == []

    async def different(connection, established):
        raise Mismatch("queue q is another one", "delete it")

    del told[:]
    async with kept(vhost, different, refused=told.append):
        await until(lambda: told)
    assert "queue q is another one" in told[0]


@pytest_twisted.ensureDeferred
async def test_an_alarm_is_known_and_its_end(own_broker):
    async def publishing(connection, established):
        channel = await connection.channel()
        await channel.confirm()
        established()
        channel.publish("amq.fanout", "x", b"x", BasicProperties(), mandatory=False).addErrback(lambda _: None)
        await defer.Deferred()

    url = own_broker.vhost()
    await deferToThread(own_broker.set_alarm, "memory")
    async with kept(url, publishing) as made:
        await until(lambda: made.service.blocked)
        assert "memory" in made.service.blocked
        await deferToThread(own_broker.clear_alarm)
        await until(lambda: not made.service.blocked)
        await deferToThread(own_broker.set_alarm, "memory")
        made.connections[0].channel().addCallback(
            lambda channel: channel._channel.basic_publish("amq.fanout", "x", b"x")
        )
        await until(lambda: made.service.blocked)
        await deferToThread(own_broker.kill)
        await until(lambda: made.service.state is State.CONNECTING)
        assert made.service.blocked == "", "a connection that is gone is not blocked"


# --- it stops in every state: no connection, no timer, no failure is left


@pytest_twisted.ensureDeferred
async def test_stopped_while_it_connects_to_a_peer_that_says_nothing():
    async with peer() as silent:
        async with kept(f"amqp://127.0.0.1:{silent.port}"):
            await until(lambda: silent.connections)
        await until(lambda: not silent.connections)


@pytest_twisted.ensureDeferred
async def test_stopped_at_once_and_never_started(vhost, broker):
    async with kept(vhost):
        pass
    never = Kept(vhost)
    await never.service.stopService()
    await until(lambda: not connections(broker, vhost))


@pytest_twisted.ensureDeferred
async def test_stopped_while_it_waits():
    async with kept("amqp://127.0.0.1:9") as made:
        await until(lambda: made.service.state is State.WAITING)


@pytest_twisted.ensureDeferred
async def test_stopped_while_the_session_begins_and_while_it_lasts(vhost, broker):
    async def begins(connection, established):
        await defer.Deferred()

    async with kept(vhost, begins) as made:
        await until(lambda: made.connections)
    assert made.cancelled == 1
    async with kept(vhost) as made:
        await made.established()
    assert made.cancelled == 1
    await until(lambda: not connections(broker, vhost))


@pytest_twisted.ensureDeferred
async def test_stopped_with_a_frozen_broker_while_it_lasts_and_while_it_ends(own_broker):
    url = own_broker.vhost() + "?heartbeat=600"
    async with kept(url) as made:
        await made.established()
        own_broker.freeze()
    own_broker.thaw()

    async def fails_later(connection, established):
        established()
        await go_on
        raise ValueError("a fault of ours")

    go_on = defer.Deferred()
    async with kept(url, fails_later) as made:
        await made.established()
        own_broker.freeze()
        go_on.callback(None)
        await until(lambda: made.service.state is State.WAITING)
        assert made.connections[0].reason is None, "it is not gone yet"
    assert made.connections[0].reason is not None
    own_broker.thaw()


@pytest_twisted.ensureDeferred
async def test_stopped_while_the_broker_blocks_it(own_broker):
    async def publishing(connection, established):
        channel = await connection.channel()
        await channel.confirm()
        established()
        await channel.publish("amq.fanout", "x", b"x", BasicProperties(), mandatory=False)
        await defer.Deferred()

    url = own_broker.vhost()
    await deferToThread(own_broker.set_alarm, "memory")
    async with kept(url, publishing) as made:
        await until(lambda: made.service.blocked)


@pytest.mark.parametrize("when", ["established", "cancelled"])
@pytest_twisted.ensureDeferred
async def test_stopped_by_its_own_session(vhost, when):
    """Whoever is told something by a session may stop it, from inside its own call."""
    stopping = []

    async def session(connection, established):
        established()
        if when == "established":
            stopping.append(made.service.stopService())
        try:
            await defer.Deferred()
        finally:
            stopping.append(made.service.stopService())

    made = Kept(vhost, session)
    made.service.startService()
    await until(lambda: made.connections)
    if when == "cancelled":
        made.connections[0].transport.abortConnection()
    await until(lambda: made.service.state is State.STOPPED)
    assert made.connections[0].reason is not None
    assert stopping


@pytest_twisted.ensureDeferred
async def test_it_may_be_started_again(vhost):
    made = Kept(vhost)
    for times in (1, 2, 3):
        made.service.startService()
        await made.established(times)
        await made.service.stopService()
