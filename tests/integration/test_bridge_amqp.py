"""The source and the sink `amqp`, between two brokers' worth of virtual hosts, with everything real."""

import json

import pika
import pytest
from support.bridge import running_bridge
from support.producers import channel
from support.running import wait_for
from support.worker import LogText, running_worker


@pytest.fixture
def foreign(broker):
    """Another virtual host, with a queue."""
    url = broker.vhost()
    with channel(url) as opened:
        opened.queue_declare("callback", durable=True)
    yield url
    broker.drop_vhost(url)


def put(url, count, *, begin=0, queue="callback", body=None, **properties):
    """Publish messages with numbers."""
    with channel(url) as opened:
        for number in range(begin, begin + count):
            given = pika.BasicProperties(**{"message_id": f"m{number}", "delivery_mode": 2} | properties)
            opened.basic_publish("", queue, body or json.dumps({"n": number, "job": 7}).encode(), given)


def waiting(url, queue):
    """How many messages a queue holds."""
    with channel(url) as opened:
        return opened.queue_declare(queue, durable=True, passive=True).method.message_count


SOURCE = """
[[bridge]]
name = "callback"
[bridge.source]
kind = "amqp"
url = "{url}"
queue = "callback"
[bridge.mapping]
group = "job_events"
type = "{{payload.job}}"
"""
# Few at once: whoever wants to kill something in their middle is in time for it on any machine.
SLOW_SOURCE = SOURCE.replace('queue = "callback"', 'queue = "callback"\nprefetch = 16')


def test_messages_become_events_in_order_and_are_acknowledged(vhost, foreign, tmp_path):
    with running_worker(tmp_path, vhost), running_bridge(tmp_path, vhost, SOURCE.format(url=foreign)) as bridge:
        put(foreign, 500)
        bridge.await_ready()
        with LogText(vhost) as log:
            assert log.await_events(500) == [f"m{number}" for number in range(500)]
            assert {event.topic for event in log.events} == {("job_events", "7")}
            assert [json.loads(event.payload)["n"] for event in log.events] == list(range(500))
        wait_for(lambda: waiting(foreign, "callback") == 0, 10, "the acknowledgement")
        assert bridge.metric("towerbus_bridge_events_total", bridge="callback") == 500
        bridge.stop()
        put(foreign, 1, begin=500)
        assert waiting(foreign, "callback") == 1, "it went on after its end"


def test_what_cannot_be_mapped_is_buried_with_the_reason_and_stops_nothing(vhost, foreign, tmp_path):
    with running_worker(tmp_path, vhost), running_bridge(tmp_path, vhost, SOURCE.format(url=foreign)) as bridge:
        put(foreign, 1, body=b"no JSON", headers={"tenant": "a"})
        put(foreign, 1, begin=1, body=b'{"n": 1}')
        put(foreign, 1, begin=2)
        bridge.await_ready()
        with LogText(vhost) as log:
            assert log.await_events(1) == ["m2"]
        with channel(vhost) as opened:
            wait_for(lambda: opened.queue_declare("towerbus.dead", passive=True).method.message_count == 2, 10, "both")
            dead = [opened.basic_get("towerbus.dead", auto_ack=True) for _ in range(2)]
        (_, first, body), (_, second, _) = dead
        assert (body, first.message_id, first.headers["tenant"]) == (b"no JSON", "m0", "a")
        assert "not JSON" in first.headers["towerbus-reason"]
        assert "it has no payload.job" in second.headers["towerbus-reason"]
        assert second.headers["towerbus-bridge"] == "callback"
        assert bridge.metric("towerbus_bridge_dead_total", bridge="callback") == 2
        assert waiting(foreign, "callback") == 0


def test_a_failing_bridge_leaves_the_others_alone_is_seen_and_heals(vhost, foreign, tmp_path):
    tables = SOURCE.format(url=foreign) + SOURCE.format(url=foreign).replace('"callback"', '"second"')
    tables += (
        '[[bridge]]\nname = "hook"\n[bridge.sink]\nkind = "webhook"\nurl = "http://127.0.0.1:1/"\nsecret = "env:HOOK"\n'
    )
    with running_worker(tmp_path, vhost), running_bridge(tmp_path, vhost, tables, HOOK="x" * 24) as bridge:
        bridge.await_well("bridge callback")
        bridge.await_broken("bridge second", "queue 'second' is not there")
        assert "bridge callback" not in bridge.get("/readyz")[1]["broken"]
        wait_for(lambda: "sink_begins: hook" in bridge.log, 20, "the sink")
        put(foreign, 10)
        with LogText(vhost) as log:
            log.await_events(10)
            bridge.await_broken("bridge hook", "127.0.0.1:1")
            assert bridge.metric("towerbus_bridge_up", bridge="second") == 0
            assert bridge.metric("towerbus_bridge_up", bridge="callback") == 1
            assert bridge.metric("towerbus_bridge_failures_total", bridge="second") >= 1
            assert "bridge_troubled: second" in bridge.log
            with channel(foreign) as opened:
                opened.queue_declare("second", durable=True)
            bridge.await_well("bridge second")
            put(foreign, 10, begin=10, queue="second")
            log.await_events(20)
        assert bridge.metric("towerbus_bridge_up", bridge="second") == 1


def test_every_message_comes_once_and_in_order_however_often_the_bridge_is_killed(vhost, foreign, tmp_path):
    total, tables = 10_000, SLOW_SOURCE.format(url=foreign)
    put(foreign, total)
    with running_worker(tmp_path, vhost) as worker:
        worker.await_log("fence_written")
        with LogText(vhost) as log:
            for kill in range(4):
                with running_bridge(tmp_path, vhost, tables) as bridge:
                    log.await_events(len(log.ids) + 300)
                    assert len(log.ids) < total, f"too late for kill {kill}"
                    bridge.kill()
            with running_bridge(tmp_path, vhost, tables):
                log.await_events(total)
                wait_for(lambda: waiting(foreign, "callback") == 0, 30, "the acknowledgements")
                assert log.await_events(total) == [f"m{number}" for number in range(total)]


@pytest.mark.parametrize("ordered", [True, False], ids=["single active consumer", "any consumers"])
def test_a_foreign_broker_of_its_own_is_killed_and_nothing_is_lost_or_repeated(vhost, own_broker, tmp_path, ordered):
    """Only a queue with a single active consumer hands out what was in hand before what comes next (docs/bridges.md)."""
    total, foreign = 5000, own_broker.vhost()
    with channel(foreign) as opened:
        arguments = {"x-queue-type": "quorum", "x-single-active-consumer": ordered}
        opened.queue_declare("callback", durable=True, arguments=arguments)
    put(foreign, total)
    own_broker.settle()
    with (
        running_worker(tmp_path, vhost) as worker,
        running_bridge(tmp_path, vhost, SLOW_SOURCE.format(url=foreign)) as bridge,
    ):
        worker.await_log("fence_written")
        with LogText(vhost) as log:
            log.await_events(1000)
            own_broker.kill()
            assert len(log.ids) < total
            bridge.await_broken("bridge callback", "Connection")
            assert bridge.get("/readyz")[1]["broken"].keys() == {"bridge callback"}, "the bus is not at fault"
            own_broker.recover()
            own_broker.await_queues(foreign)
            log.await_events(total, seconds=60)
            bridge.await_ready()
            wait_for(lambda: waiting(foreign, "callback") == 0, 30, "the acknowledgements")
            found = log.await_events(total)
            assert (found if ordered else sorted(found, key=lambda id_: int(id_[1:]))) == [
                f"m{n}" for n in range(total)
            ]
