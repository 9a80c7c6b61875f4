"""The intake over AMQP, with a real broker that stops, freezes, is full and comes back."""

import contextlib

import pytest
import pytest_twisted
from support import intakes
from support.intakes import made, messages_in, number, numbers, unrepeated
from support.proxy import Proxy
from support.proxy_links import TO_CLIENT
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from towerbus.amqp import intake as intake_module
from towerbus.amqp.intake import AmqpIntake
from towerbus.amqp.service import State
from towerbus.amqp.url import parse
from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.intake.interface import IIntake


@contextlib.asynccontextmanager
async def running(url, *, declared=True, connected=True, **given):
    """An intake, stopped at the end."""
    if declared:
        await deferToThread(intakes.declare_now, url)
    intake = AmqpIntake(parse(url), reactor, **given)
    assert verifyObject(IIntake, intake)
    intake.startService()
    try:
        if connected:
            await until(lambda: intake.bus.state is State.ESTABLISHED)
        yield intake
    finally:
        await intake.stopService()
        assert intake.bus.state is State.STOPPED


def at(url, port):
    """The same virtual host through another port."""
    head, _, tail = url.partition("@")
    return f"{head}@127.0.0.1:{port}/{tail.partition('/')[2]}"


async def failure(deferred):
    """What a Deferred fails with."""
    with pytest.raises(NotConfirmed) as caught:
        await deferred
    return caught.value


@pytest_twisted.ensureDeferred
async def test_what_is_emitted_in_one_turn_is_one_message_and_confirmed_means_there(vhost):
    async with running(vhost) as intake:
        await gatherResults([intake.emit([made(n)]) for n in range(200)])
        await intake.emit([made(n) for n in range(200, 900)])
        await intake.emit([])
        found = await messages_in(vhost)
    assert numbers(found) == list(range(900))
    assert [len(message.events) for message in found] == [200, 256, 256, 188]
    assert {message.properties.delivery_mode for message in found} == {2}
    assert all(message.packed for message in found)
    assert len({message.id for message in found}) == 4


@pytest_twisted.ensureDeferred
async def test_large_events_go_alone_and_come_whole(vhost):
    async with running(vhost) as intake:
        await gatherResults([intake.emit([made(n, size=300_000)]) for n in range(5)])
        found = await messages_in(vhost)
    assert [len(message.events) for message in found] == [1] * 5
    assert [len(message.events[0].payload) for message in found] == [300_014] * 5


@pytest_twisted.ensureDeferred
async def test_a_message_that_reaches_no_queue_is_not_confirmed(vhost):
    async with running(vhost, grace=2.0) as intake:
        async with unbound(vhost):
            error = await failure(intake.emit([made(1)]))
            assert isinstance(error, BusUnavailable)
            assert "NO_ROUTE" in error.reason
            assert "NO_ROUTE" in intake.trouble
            late = intake.emit([made(2)])
        await late
        assert intake.trouble == ""
        assert numbers(await messages_in(vhost)) == [2]


@contextlib.asynccontextmanager
async def unbound(url):
    """Nothing leads to the intake, for a while."""

    def turn(verb):
        with intakes.channel(url) as channel:
            getattr(channel, verb)("towerbus.intake", "towerbus.direct", "intake")

    await deferToThread(turn, "queue_unbind")
    yield
    await deferToThread(turn, "queue_bind")


@pytest_twisted.ensureDeferred
async def test_a_full_intake_refuses_at_once_and_what_is_behind_too(vhost):
    await deferToThread(intakes.declare_now, vhost, intake_max_bytes=20_000)
    async with running(vhost, declared=False) as intake:
        confirmed, error = [], None
        while error is None:
            calls = [(n, intake.emit([made(n, size=1000)])) for n in range(len(confirmed), len(confirmed) + 10)]
            for n, call in calls:
                try:
                    await call
                    confirmed.append(n)
                except BusUnavailable as failed:
                    error = error or failed
            assert len(confirmed) < 10_000
        assert "intake full" in error.reason
        assert numbers(await messages_in(vhost)) == confirmed
        await intake.emit([made(-1)])


@pytest_twisted.ensureDeferred
async def test_a_patient_one_waits_until_there_is_room_and_keeps_the_order(vhost):
    await deferToThread(intakes.declare_now, vhost, intake_max_bytes=20_000)
    async with running(vhost, declared=False, patient=True, timeout=30) as intake:
        calls = [intake.emit([made(n, size=60_000)]) for n in range(12)]
        await until(lambda: "intake full" in intake.trouble)
        found = []
        while not all(call.called for call in calls):
            found += await messages_in(vhost)
        await gatherResults(calls)
        found += await messages_in(vhost)
    assert [number(event) for event in unrepeated(found)] == list(range(12))


@pytest_twisted.ensureDeferred
async def test_without_a_broker_it_fails_after_the_grace_and_says_why():
    async with running("amqp://127.0.0.1:9/x", declared=False, connected=False, grace=1.0) as intake:
        error = await failure(intake.emit([made(1, id="mine")]))
    assert isinstance(error, BusUnavailable)
    assert error.ids == ("mine",)
    assert "refused" in error.reason


@pytest_twisted.ensureDeferred
async def test_without_the_objects_it_says_who_makes_them(vhost):
    async with running(vhost, declared=False, connected=False, patient=True, timeout=20) as intake:
        waiting = intake.emit([made(1)])
        await until(lambda: "towerbus-worker" in intake.trouble)
        await deferToThread(intakes.declare_now, vhost)
        await waiting
        assert numbers(await messages_in(vhost)) == [1]


@pytest_twisted.ensureDeferred
async def test_an_alarm_is_waited_for_no_longer_than_the_grace_and_it_goes_on_after_it(own_broker, monkeypatch):
    monkeypatch.setattr(intake_module, "STALLED", 0.2)  # an alarm is no stall, however long it lasts
    url = own_broker.vhost()
    async with running(url, grace=0.5, timeout=30) as intake:
        await intake.emit([made(0)])
        await deferToThread(own_broker.set_alarm, "memory")
        first = intake.emit([made(1)])
        await until(lambda: intake.bus.blocked)
        error = await failure(intake.emit([made(2)]))
        assert isinstance(error, BusUnavailable)
        assert "takes nothing" in error.reason
        await deferToThread(own_broker.clear_alarm)
        await first
        await intake.emit([made(3)])
        assert intake.bus.reconnects == 0
        assert numbers(await messages_in(url)) == [0, 1, 3]


@pytest.mark.seconds(120)
@pytest_twisted.ensureDeferred
async def test_a_broker_that_is_killed_and_comes_back_has_all_that_was_confirmed_in_order(own_broker):
    url = own_broker.vhost()
    async with running(url, timeout=60, grace=60) as intake:
        own_broker.settle()
        confirmed, failed = [], []
        calls = []

        def emit(n):
            call = intake.emit([made(n)])
            call.addCallbacks(lambda _: confirmed.append(n), failed.append)
            calls.append(call)

        for n in range(3000):
            emit(n)
            if n == 500:
                await until(lambda: confirmed)
                await deferToThread(own_broker.kill)
                restarted = deferToThread(own_broker.start)
            if n % 100 == 0:
                await turn()
        await restarted
        await DeferredList(calls)
        assert failed == []
        assert confirmed == list(range(3000))
        found = await messages_in(url)
        assert [number(event) for event in unrepeated(found)] == list(range(3000))
        assert intake.bus.reconnects == 1


async def turn():
    waited = Deferred()
    reactor.callLater(0.001, waited.callback, None)
    await waited


@pytest_twisted.ensureDeferred
async def test_what_was_in_doubt_is_sent_again_with_the_same_ids(vhost, broker):
    proxy = Proxy(reactor, broker.port)
    await proxy.start()
    await deferToThread(intakes.declare_now, vhost)
    async with running(at(vhost, proxy.port), declared=False) as intake:
        proxy.blackhole(TO_CLIENT)
        calls = [intake.emit([made(n)]) for n in range(3)]
        await until(lambda: intake._line.in_flight)
        await until(lambda: len(broker.queues(vhost)) and broker.queues(vhost)["towerbus.intake"]["messages"] == 1)
        calls += [intake.emit([made(n)]) for n in range(3, 6)]
        proxy.cut()
        await proxy.heal()
        await gatherResults(calls)
        found = await messages_in(vhost)
    assert numbers(found) == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert [number(event) for event in unrepeated(found)] == [0, 1, 2, 3, 4, 5]
    assert found[0].id == found[1].id
    await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_a_connection_that_answers_no_more_is_given_up_for_a_new_one_within_the_deadline(vhost, broker):
    proxy = Proxy(reactor, broker.port)
    await proxy.start()
    await deferToThread(intakes.declare_now, vhost)
    async with running(at(vhost, proxy.port), declared=False) as intake:
        proxy.blackhole()
        waiting = intake.emit([made(1)])
        await until(lambda: "no answer to a message" in intake.trouble)
        await proxy.heal()
        await waiting
        found = await messages_in(vhost)
    assert [number(event) for event in unrepeated(found)] == [1]
    await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_what_ended_the_connection_before_is_told_until_something_is_confirmed(vhost, broker):
    """Some troubles, such as a missing permission, are told only to whoever publishes, and end the connection."""
    proxy = Proxy(reactor, broker.port)
    await proxy.start()
    await deferToThread(intakes.declare_now, vhost)
    async with running(at(vhost, proxy.port), declared=False, timeout=1.0) as intake:
        for rest, known in ((0, True), (1, False)):
            proxy.cut()
            await until(lambda: intake.bus.state is State.WAITING)
            why = intake.trouble
            await proxy.heal()
            await until(lambda: intake.bus.state is State.ESTABLISHED)
            for number_ in range(rest):
                await intake.emit([made(number_)])
            proxy.blackhole()
            error = await failure(intake.emit([made(9)]))
            assert "no answer from the broker" in error.reason
            assert (why in error.reason) == known
            await proxy.heal()
    await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_a_frozen_broker_is_doubt_for_what_was_sent_and_none_for_the_rest(own_broker):
    url = own_broker.vhost()
    async with running(url, timeout=1.0, grace=0.2) as intake:
        await intake.emit([made(0)])
        own_broker.freeze()
        sent = intake.emit([made(1)])
        await until(lambda: intake._line.in_flight)
        behind = intake.emit([made(2)])
        errors = [await failure(sent), await failure(behind)]
        own_broker.thaw()
        assert [error.sure for error in errors] == [False, True]
        assert "1 s" in errors[0].reason
        await until(lambda: not intake._line.in_flight)
        assert numbers(await messages_in(url)) == [0, 1]


@pytest_twisted.ensureDeferred
async def test_what_stands_in_line_is_bounded(vhost):
    async with running(vhost, max_bytes=5000) as intake:
        calls = [intake.emit([made(n)]) for n in range(20)]
        failed = [
            n for n, call in enumerate(calls) if isinstance(getattr(call, "result", None), object) and call.called
        ]
        for n in failed:
            await failure(calls[n])
        assert failed == list(range(failed[0], 20))
        await gatherResults(calls[: failed[0]])
        await intake.emit([made(20)])
        assert numbers(await messages_in(vhost)) == [*range(failed[0]), 20]


@pytest_twisted.ensureDeferred
async def test_one_that_is_cancelled_is_not_sent():
    async with running("amqp://127.0.0.1:9/x", declared=False, connected=False) as intake:
        waiting = intake.emit([made(1)])
        waiting.cancel()
        with pytest.raises(CancelledError):
            await waiting
        assert intake._line.bytes == 0


@pytest_twisted.ensureDeferred
async def test_a_stop_publishes_what_stands_in_line_and_refuses_later_calls(vhost):
    async with running(vhost) as intake:
        calls = [intake.emit([made(n, size=30_000)]) for n in range(20)]
        await intake.stopService()
        await gatherResults(calls)
        assert isinstance(await failure(intake.emit([made(99)])), BusUnavailable)
    assert numbers(await messages_in(vhost)) == list(range(20))


@pytest_twisted.ensureDeferred
async def test_it_may_be_stopped_by_whoever_is_told(vhost):
    async with running(vhost) as intake:
        await intake.emit([made(1)])
        await intake.stopService()
        intake.startService()
        await intake.emit([made(2)])
    assert numbers(await messages_in(vhost)) == [1, 2]


@pytest_twisted.ensureDeferred
async def test_a_stop_without_a_broker_tells_all_that_wait(own_broker):
    async with running("amqp://127.0.0.1:9/x", declared=False, connected=False) as intake:
        waiting = intake.emit([made(1)])
        stopped = intake.stopService()
        assert isinstance(await failure(waiting), BusUnavailable)
        await stopped


@pytest_twisted.ensureDeferred
async def test_one_that_is_cancelled_when_the_outcome_is_there_keeps_it_from_nobody(vhost):
    async with running(vhost) as intake:
        calls = [intake.emit([made(n)]) for n in range(3)]
        calls[0].addCallback(lambda _: calls[1].cancel())
        calls[1].addErrback(lambda failure: failure.trap(CancelledError))
        await gatherResults([calls[0], calls[2]])
    assert numbers(await messages_in(vhost)) == [0, 1, 2]


@pytest.mark.seconds(120)
@pytest_twisted.ensureDeferred
async def test_a_stop_while_the_broker_does_not_answer_tells_all_and_leaves_no_connection(own_broker):
    url = own_broker.vhost()
    async with running(url, timeout=60) as intake:
        await intake.emit([made(0)])
        await deferToThread(own_broker.freeze)
        waiting = intake.emit([made(1)])
        await until(lambda: intake._line.in_flight)
        stopped = intake.stopService()
        assert not (await failure(waiting)).sure, "it was sent"
        await stopped
        assert intake.bus.state is State.STOPPED
    await deferToThread(own_broker.thaw)


@pytest.mark.seconds(120)
@pytest_twisted.ensureDeferred
async def test_a_stop_while_the_intake_is_full_does_not_wait_for_what_is_refused(vhost):
    await deferToThread(intakes.declare_now, vhost, intake_max_bytes=20_000)
    async with running(vhost, declared=False) as intake:
        calls = [intake.emit([made(n, size=30_000)]) for n in range(40)]
        await intake.stopService()
        outcomes = await DeferredList(calls, consumeErrors=True)
        assert any(not good for good, _ in outcomes)
