"""The emitter for Twisted programs over AMQP, with a real broker."""

import pytest
import pytest_twisted
from support import intakes
from support.intakes import connections, messages_in, number, numbers, unrepeated
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent

from towerbus.async_emitter import AsyncEmitter
from towerbus.errors import BusUnavailable, ConfigError, NotConfirmed, PeerError


@pytest.fixture
def url(vhost):
    """A virtual host with all its objects."""
    intakes.declare_now(vhost)
    return vhost


def emit(emitter, number, **given):
    return emitter.emit("jobs", "x", b'{"n":%d,"x":""}' % number, **given)


@pytest_twisted.ensureDeferred
async def test_events_are_emitted_in_the_order_of_the_calls_and_their_ids_come_back(url, broker):
    emitter = AsyncEmitter(reactor, url)
    calls = [emit(emitter, n) for n in range(300)]
    many = emitter.emit_many(
        [{"group": "jobs", "type": "x", "payload": b'{"n":%d,"x":""}' % n} for n in range(300, 900)]
    )
    ids = [*await gatherResults(calls), *await many]
    assert await emitter.emit_many([]) == []
    assert await emit(emitter, 900, id="mine") == "mine"
    assert len(connections(broker, url)) == 1
    found = await messages_in(url)
    assert numbers(found) == list(range(901))
    assert [event.id for message in found for event in message.events] == [*ids, "mine"]
    await emitter.close()


@pytest_twisted.ensureDeferred
async def test_what_is_wrong_fails_before_anything_is_sent():
    emitter = AsyncEmitter(reactor, "amqp://127.0.0.1:9")
    with pytest.raises(PeerError, match="group"):
        await emitter.emit("a b", "x", {"n": 1})
    with pytest.raises(PeerError, match="limit"):
        await emitter.emit("jobs", "x", {"n": "x" * 2_000_000})
    with pytest.raises(ConfigError, match="heartbeat"):
        AsyncEmitter(reactor, "amqp://127.0.0.1:9?heartbeat=x")
    await emitter.close()


@pytest_twisted.ensureDeferred
async def test_it_waits_for_the_broker_until_its_time_is_over():
    emitter = AsyncEmitter(reactor, "amqp://u:secret@127.0.0.1:9", timeout=0.5)
    with pytest.raises(NotConfirmed, match="within 0.5 s") as caught:
        await emit(emitter, 1, id="mine")
    assert (caught.value.ids, caught.value.sure) == (("mine",), True)
    assert "secret" not in str(caught.value)
    await emitter.close()


@pytest_twisted.ensureDeferred
async def test_a_full_intake_is_waited_for_and_the_order_is_kept(vhost):
    await deferToThread(intakes.declare_now, vhost, intake_max_bytes=20_000)
    emitter = AsyncEmitter(reactor, vhost, timeout=40)
    calls = [emitter.emit("jobs", "x", b'{"n":%d,"x":"%s"}' % (n, b"x" * 60_000)) for n in range(10)]
    found = []
    while not all(call.called for call in calls):
        found += await messages_in(vhost)
    await gatherResults(calls)
    found += await messages_in(vhost)
    assert [number(event) for event in unrepeated(found)] == list(range(10))
    await emitter.close()


@pytest_twisted.ensureDeferred
async def test_a_wrong_password_is_told_at_once(url):
    emitter = AsyncEmitter(reactor, url.replace("tb:tb@", "tb:secret@"), timeout=50)
    with pytest.raises(BusUnavailable, match="password") as caught:
        await emit(emitter, 1)
    assert "secret" not in str(caught.value)
    assert "within" not in str(caught.value), "its time was not over"
    await emitter.close()


@pytest_twisted.ensureDeferred
async def test_a_close_publishes_what_waits_and_a_later_emit_makes_a_new_connection(url, broker):
    emitter = AsyncEmitter(reactor, url)
    await emitter.close()
    await emit(emitter, -1)
    calls = [emit(emitter, n) for n in range(1000)]
    closing = emitter.close()
    again = emit(emitter, 1000)
    await gatherResults([*calls, closing])
    await again
    await emitter.close()
    await until(lambda: connections(broker, url) == [])
    found = numbers(await messages_in(url))
    assert [n for n in found if n < 1000] == list(range(-1, 1000))
    assert 1000 in found


@pytest_twisted.ensureDeferred
async def test_one_that_is_cancelled_is_not_sent():
    emitter = AsyncEmitter(reactor, "amqp://127.0.0.1:9")
    waiting = emit(emitter, 1)
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    await emitter.close()


@pytest_twisted.ensureDeferred
async def test_a_token_is_not_needed_and_that_is_said(url):
    with capturedLogs() as logs:
        AsyncEmitter(reactor, url, "some-token")
    said = [formatEvent(event) for event in logs]
    assert any("no token is needed" in text for text in said)
    assert not any("some-token" in text for text in said)
