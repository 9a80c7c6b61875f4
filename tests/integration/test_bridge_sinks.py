"""The sinks, with everything real: what is in the log arrives in order, across kills, and what never will is buried."""

import json

import pika
import pytest
from standardwebhooks import Webhook
from support import producers
from support.bridge import running_bridge
from support.broker import Broker
from support.hooks import Hooks
from support.producers import channel
from support.running import wait_for
from support.worker import running_worker

pytestmark = pytest.mark.long

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture
def foreign(broker):
    """Another virtual host, with an exchange and a queue that has all."""
    url = broker.vhost()
    with channel(url) as opened:
        opened.exchange_declare("lake", "topic", durable=True)
        opened.queue_declare("all", durable=True)
        opened.queue_bind("all", "lake", "#")
    yield url
    broker.drop_vhost(url)


@pytest.fixture(scope="module")
def narrow():
    """Another broker, that takes small messages only."""
    with Broker(config={"max_message_size": "20000"}) as node:
        yield node


def emit(url, *numbers, key="jobs.x"):
    with channel(url) as opened:
        for number in numbers:
            producers.emit(opened, f"n{number}", b'{"n":%d}' % number, key=key)


def taken(url, queue="all"):
    """Take all messages of a queue."""
    found = []
    with channel(url) as opened:
        while (message := opened.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(message)
    return found


def first_times(numbers):
    return list(dict.fromkeys(numbers))


LAKE = """
[[bridge]]
name = "lake"
topics = ["jobs/*", "job_events/*"]
[bridge.sink]
kind = "amqp"
url = "{url}"
exchange = "lake"
in_flight = {in_flight}
"""


def await_begin(bridge, name):
    wait_for(lambda: f"sink_begins: {name}" in bridge.log, 30, "the sink's position")


@pytest.mark.parametrize("in_flight", [1, 64])
def test_events_reach_a_foreign_exchange_in_order_and_a_restart_goes_on(vhost, foreign, tmp_path, in_flight):
    tables = LAKE.format(url=foreign, in_flight=in_flight)
    with running_worker(tmp_path, vhost) as worker:
        worker.await_log("fence_written")
        emit(vhost, 1000)
        found = []

        def numbers(count):
            def all_there():
                found.extend(taken(foreign))
                return len(first_times(m.message_id for _, m, _ in found)) >= count

            wait_for(all_there, 30, f"{count} messages")
            return [json.loads(body)["n"] for _, _, body in found]

        with running_bridge(tmp_path, vhost, tables) as bridge:
            await_begin(bridge, "lake")
            emit(vhost, *range(50))
            emit(vhost, 2000, key="secrets.x")
            emit(vhost, 50, key="job_events.42")
            assert numbers(51) == list(range(51)), "what was there before is not for it, nor are other topics"
            method, properties, _ = found[-1]
            assert (method.routing_key, properties.message_id) == ("job_events.42", "n50")
            assert properties.headers["towerbus-group"] == "job_events"
            assert properties.headers["towerbus-type"] == "42"
            bridge.stop()
        emit(vhost, *range(51, 100))
        with running_bridge(tmp_path, vhost, tables) as bridge:
            assert numbers(100) == list(range(100)), "a restart in order repeats nothing"
            emit(vhost, *range(100, 300))
            bridge.kill()
        with running_bridge(tmp_path, vhost, tables) as bridge:
            assert first_times(numbers(300)) == list(range(300))
            bridge.await_ready()
            assert bridge.metric("towerbus_bridge_up", bridge="lake") == 1


def test_a_queue_that_takes_nothing_is_waited_for_in_order(vhost, foreign, tmp_path):
    with channel(foreign) as opened:
        opened.exchange_declare("narrow", "topic", durable=True)
    tables = LAKE.format(url=foreign, in_flight=1).replace('"lake"\nin', '"narrow"\nin')
    with running_worker(tmp_path, vhost) as worker, running_bridge(tmp_path, vhost, tables) as bridge:
        worker.await_log("fence_written")
        await_begin(bridge, "lake")
        emit(vhost, *range(10))
        bridge.await_broken("bridge lake", "returned")
        with channel(foreign) as opened:
            arguments = {"x-max-length": 5, "x-overflow": "reject-publish"}
            opened.queue_declare("five", durable=True, arguments=arguments)
            opened.queue_bind("five", "narrow", "#")
        wait_for(lambda: "refused" in json.dumps(bridge.get("/readyz")[1]), 30, "a full queue")
        found = []

        def all_there():
            found.extend(taken(foreign, "five"))
            return len(found) >= 10

        wait_for(all_there, 30, "all")
        assert [json.loads(body)["n"] for _, _, body in found] == list(range(10))
        bridge.await_ready()


@pytest.mark.parametrize("in_flight", [1, 64])
def test_an_event_that_is_too_large_for_the_foreign_broker_is_buried_and_the_rest_goes_on(
    vhost, narrow, tmp_path, in_flight
):
    foreign = narrow.vhost()
    with channel(foreign) as opened:
        opened.exchange_declare("lake", "topic", durable=True)
        opened.queue_declare("all", durable=True)
        opened.queue_bind("all", "lake", "#")
    tables = LAKE.format(url=foreign, in_flight=in_flight)
    with running_worker(tmp_path, vhost) as worker, running_bridge(tmp_path, vhost, tables) as bridge:
        worker.await_log("fence_written")
        await_begin(bridge, "lake")
        with channel(vhost) as opened:
            for number in range(9):
                body = json.dumps({"n": number, "pad": "x" * (30_000 if number == 4 else 0)})
                producers.emit(opened, f"n{number}", body.encode(), key="jobs.x")
        found = []

        def all_there():
            found.extend(json.loads(body)["n"] for _, _, body in taken(foreign))
            return len(set(found)) == 8

        wait_for(all_there, 30, "the others")
        assert first_times(found) == [n for n in range(9) if n != 4]
        wait_for(lambda: bridge.metric("towerbus_bridge_dead_total", bridge="lake") == 1, 10, "the burial")
        bridge.await_ready()
    ((_, properties, body),) = taken(vhost, "towerbus.dead")
    assert (properties.message_id, len(body) > 30_000) == ("n4", True)
    assert "message size" in properties.headers["towerbus-reason"]


HOOK = """
[[bridge]]
name = "hook"
topics = ["jobs/*"]
[bridge.sink]
kind = "webhook"
url = "http://127.0.0.1:{port}/hooks?token=hidden"
secret = "env:HOOK_SECRET"
batch = 20
timeout = 5
retry_seconds = {retry}
"""


def test_batches_are_signed_in_order_and_posted_again_until_they_are_taken(vhost, tmp_path):
    with running_worker(tmp_path, vhost) as worker, Hooks() as hooks:
        worker.await_log("fence_written")
        tables = HOOK.format(port=hooks.port, retry=600)
        with running_bridge(tmp_path, vhost, tables, HOOK_SECRET=SECRET) as bridge:
            await_begin(bridge, "hook")
            emit(vhost, *range(50))
            wait_for(lambda: len(hooks.events) == 50, 30, "the events")
            hooks.answer = lambda _: 503
            emit(vhost, *range(50, 60))
            bridge.await_broken("bridge hook", "answered 503")
            wait_for(lambda: len(hooks.refused) >= 2, 30, "another try")
            assert "hidden" not in bridge.log
            bridge.kill()
        hooks.answer = lambda _: 200
        with running_bridge(tmp_path, vhost, tables, HOOK_SECRET=SECRET) as bridge:
            wait_for(lambda: len(hooks.events) >= 60, 30, "the rest")
            bridge.await_ready()
        assert hooks.numbers == list(range(60))
        assert hooks.events[0] == hooks.events[0] | {"group": "jobs", "type": "x", "id": "n0", "payload": {"n": 0}}
        assert set(hooks.events[0]) == {"group", "type", "id", "payload", "time", "position"}
        for headers, body in hooks.posts:
            Webhook(SECRET).verify(body, {name.lower(): value for name, value in headers.items()})
            assert len(json.loads(body)["events"]) <= 20


def test_what_is_never_taken_is_buried_alone_and_the_rest_goes_on(vhost, tmp_path):
    with running_worker(tmp_path, vhost) as worker, Hooks() as hooks:
        worker.await_log("fence_written")
        hooks.answer = lambda said: 422 if any(each["payload"]["n"] == 7 for each in said["events"]) else 200
        with running_bridge(tmp_path, vhost, HOOK.format(port=hooks.port, retry=600), HOOK_SECRET=SECRET) as bridge:
            await_begin(bridge, "hook")
            emit(vhost, *range(20))
            wait_for(lambda: len(hooks.events) == 19, 30, "the others")
            assert hooks.numbers == [n for n in range(20) if n != 7]
            wait_for(lambda: bridge.metric("towerbus_bridge_dead_total", bridge="hook") == 1, 10, "the burial")
            bridge.await_ready()
        ((_, properties, body),) = taken(vhost, "towerbus.dead")
        assert json.loads(body) == {"n": 7}
        assert properties.message_id == "n7"
        assert "answered 422" in properties.headers["towerbus-reason"]


def test_after_its_time_a_batch_is_buried(vhost, tmp_path):
    with running_worker(tmp_path, vhost) as worker, Hooks() as hooks:
        worker.await_log("fence_written")
        hooks.answer = lambda said: 500 if said["events"][0]["payload"]["n"] < 3 else 200
        with running_bridge(tmp_path, vhost, HOOK.format(port=hooks.port, retry=1), HOOK_SECRET=SECRET) as bridge:
            await_begin(bridge, "hook")
            emit(vhost, 1)
            wait_for(lambda: bridge.metric("towerbus_bridge_dead_total", bridge="hook") == 1, 30, "the burial")
            emit(vhost, 3)
            wait_for(lambda: hooks.numbers == [3], 30, "the next one")
            bridge.await_ready()
        assert isinstance(taken(vhost, "towerbus.dead")[0][1], pika.BasicProperties)


def test_a_log_that_is_made_anew_is_told_as_lost_and_the_sink_goes_on(vhost, foreign, tmp_path):
    with running_worker(tmp_path, vhost) as worker:
        worker.await_log("fence_written")
        with running_bridge(tmp_path, vhost, LAKE.format(url=foreign, in_flight=1)) as bridge:
            await_begin(bridge, "lake")
            emit(vhost, 1)
            wait_for(lambda: taken(foreign), 30, "the first event")
            with channel(vhost) as opened:
                opened.queue_delete("towerbus.log")
            worker.await_log("log_made", times=2)
            found = []

            def arrives():
                emit(vhost, 100 + len(found))
                found.extend(taken(foreign))
                return found

            wait_for(arrives, 60, "events of the new log")
            wait_for(lambda: bridge.metric("towerbus_bridge_lost_total", bridge="lake") == 1, 10, "the loss")
            assert "events_lost: lake" in bridge.log
            bridge.await_ready()


def test_a_sink_goes_on_in_order_when_both_brokers_were_killed(own_broker, tmp_path):
    bus, foreign = own_broker.vhost(), own_broker.vhost()
    with channel(foreign) as opened:
        opened.exchange_declare("lake", "topic", durable=True)
        opened.queue_declare("all", durable=True, arguments={"x-queue-type": "quorum"})
        opened.queue_bind("all", "lake", "#")
    with running_worker(tmp_path, bus) as worker:
        worker.await_log("fence_written")
        own_broker.settle()
        with running_bridge(tmp_path, bus, LAKE.format(url=foreign, in_flight=8)) as bridge:
            await_begin(bridge, "lake")
            emit(bus, *range(2000))
            wait_for(lambda: bridge.metric("towerbus_bridge_events_total", bridge="lake") >= 200, 30, "some")
            own_broker.kill()
            own_broker.recover()
            own_broker.await_queues(bus)
            own_broker.await_queues(foreign)
            wait_for(lambda: bridge.metric("towerbus_bridge_events_total", bridge="lake") >= 2000, 60, "the rest")
            bridge.await_ready()
            found = [json.loads(body)["n"] for _, _, body in taken(foreign)]
    assert first_times(found) == list(range(2000))
