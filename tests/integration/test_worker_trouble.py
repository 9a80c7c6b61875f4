"""The worker in trouble: a broker that dies, is away, is full, refuses; objects that go away; and what can't be mended by waiting."""

import re
import time
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest
from support.producers import Producer, channel, emit, emit_packed
from support.running import TWISTD, finish, start, wait_for
from support.worker import LogText, running_worker

from towerbus.amqp.topology import Limits


@pytest.fixture
def worker(tmp_path, vhost):
    with running_worker(tmp_path, vhost) as started:
        started.await_log("worker_active")
        yield started


def test_what_no_waiting_mends_is_a_message_and_exit_code_1(tmp_path, broker, vhost):
    name = vhost.rsplit("/", 1)[1]
    at = vhost.split("@")[1]
    broker.api("PUT", "/api/users/nobody", {"password": "x", "tags": ""})
    broker.api("PUT", f"/api/permissions/{name}/nobody", {"configure": "", "write": ".*", "read": ".*"})
    with channel(vhost) as other:
        other.queue_declare("short.intake", durable=True)
        other.queue_declare("long.log", durable=True, arguments=Limits(log_max_age=5).log)
    wrong = {
        "memory:": ["TOWERBUS_BUS", "memory:", "amqp://", "twistd towerbus"],
        f"amqp://tb:wrong@{at}": ["the login of user 'tb' is refused", "password"],
        f"amqp://tb:tb@{at}x": ["virtual host", "permissions"],
        f"amqp://nobody:x@{at}": ["ACCESS_REFUSED", "user 'nobody'", "permission"],
        f"{vhost}?prefix=short": ["queue short.intake", "delete the queue"],
        f"{vhost}?prefix=long": ["queue long.log", "--log-max-age"],
    }
    children = {
        url: start([TWISTD, "-n", "--pidfile=", "towerbus-worker"], tmp_path, TOWERBUS_BUS=url) for url in wrong
    }
    for url, (code, output, errors) in {url: finish(child, 60) for url, child in children.items()}.items():
        assert code == 1, (url, output, errors)
        said = errors.strip().splitlines()[-1]
        assert said.startswith("towerbus-worker: "), (url, said)
        assert ":wrong@" not in output + errors
        for part in wrong[url]:
            assert part in said, (url, part, said)


def test_a_log_that_is_smaller_than_four_of_its_segments_is_warned_of(tmp_path, vhost):
    """RabbitMQ may let go of all of it; but what the log of a running installation has can't be changed."""
    with running_worker(tmp_path, vhost, "--log-max-bytes=10000000", "--log-segment-bytes=2500001") as worker:
        worker.await_log("worker_active")
        for part in (
            "log_small",
            "2500001 bytes in a log of 10000000",
            "lower --log-segment-bytes",
            "make the log anew",
        ):
            assert part in worker.log
    with channel(vhost) as other:
        other.queue_delete("towerbus.log")
    with running_worker(
        tmp_path, vhost, "--log-max-bytes=10000000", "--log-segment-bytes=2500000", name="room"
    ) as worker:
        worker.await_log("worker_active")
        assert "log_small" not in worker.log


def test_the_help_is_for_people(tmp_path):
    code, output, _ = finish(start([TWISTD, "towerbus-worker", "--help"], tmp_path), 30)
    assert code == 0
    for part in ("--bus=", "--record-pause=", "--log-max-age=", "towerbus.dead", "Start two of them"):
        assert part in output


def test_the_intake_is_made_anew_when_it_is_deleted(worker, vhost):
    with channel(vhost) as producer, LogText(vhost) as log:
        emit(producer, "a")
        log.await_events(1)
        producer.queue_delete("towerbus.intake")
        worker.await_log("worker_active", times=2)
        emit_packed(producer, ["a", "b"])
        log.await_events(2)
    assert log.ids == ["a", "b"]
    assert "intake can't be read any more" in worker.log


def test_a_log_that_nothing_reaches_is_mended_and_loses_nothing(worker, vhost):
    """A publish that is returned is a failure, though the broker confirms it."""
    with channel(vhost) as producer, LogText(vhost) as log:
        emit(producer, "a")
        log.await_events(1)
        producer.queue_unbind("towerbus.log", "towerbus.direct", "log")
        emit(producer, "b")
        log.await_events(2)
    assert log.ids == ["a", "b"]
    assert "returned by the broker" in worker.log


def test_a_dead_queue_that_is_gone_is_made_anew_and_the_letter_is_kept(worker, vhost, broker):
    with channel(vhost) as producer, LogText(vhost) as log:
        producer.queue_delete("towerbus.dead")
        emit(producer, None, b"bad")
        emit(producer, "a")
        log.await_events(1)
        # The events do not wait for it.
        wait_for(lambda: broker.queues(vhost).get("towerbus.dead", {}).get("messages_ready"), 20, "the dead queue")
        assert producer.basic_get("towerbus.dead", auto_ack=True)[2] == b"bad"
    assert log.ids == ["a"]


def test_more_than_fits_in_hand_makes_it_take_fewer(tmp_path, vhost):
    """64 MiB may be in hand: here are 100, in messages of the largest size."""
    payload = b'{"x":"' + b"x" * (1024 * 1024 - 9) + b'"}'
    with running_worker(tmp_path, vhost, name="maker") as maker:
        maker.await_log("worker_active")
        maker.stop()
    with channel(vhost) as producer:
        for number in range(100):
            emit(producer, f"e{number}", payload)
    with running_worker(tmp_path, vhost) as worker, LogText(vhost) as log:
        assert log.await_events(100) == [f"e{number}" for number in range(100)]
        assert "bytes are in hand" in worker.log
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (peak,) = re.findall(r"VmHWM:\s*([0-9]+) kB", status)
    assert int(peak) < 350_000, f"{peak} KB"


def test_a_broker_may_be_killed_under_load_and_is_waited_for(tmp_path, own_broker):
    url = own_broker.vhost()
    with ExitStack() as stack:
        one = stack.enter_context(running_worker(tmp_path, url, name="one"))
        one.await_log("worker_active")
        own_broker.settle()
        single = stack.enter_context(Producer(url, "single"))
        packed = stack.enter_context(Producer(url, "packed", events=25))
        wait_for(lambda: len(single.confirmed) > 50, 20, "confirms")
        own_broker.kill()
        two = stack.enter_context(running_worker(tmp_path, url, name="two"))
        two.await_log("amqp_retry", times=2)
        assert "refused" in two.log
        own_broker.start()
        before = len(single.confirmed)
        wait_for(lambda: len(single.confirmed) > before + 50, 30, "confirms after the kill")
        for worker in (one, two):
            worker.await_log("amqp_established")
        single.stop()
        packed.stop()
        log = stack.enter_context(LogText(url))
        log.await_events(len(single.confirmed) + len(packed.confirmed))
        for producer in (single, packed):
            assert [id_ for id_ in log.ids if id_.startswith(producer.name)] == producer.confirmed
        assert len(log.ids) == len(single.confirmed) + len(packed.confirmed)
        for worker in (one, two):
            assert worker.process.poll() is None
            assert "Traceback" not in worker.log


def test_an_alarm_is_waited_for_and_said_once(tmp_path, own_broker):
    url = own_broker.vhost()
    with running_worker(tmp_path, url, name="maker") as maker:
        maker.await_log("worker_active")
        maker.stop()
    with channel(url) as producer, LogText(url) as log:
        emit_packed(producer, ["a", "b"])
        own_broker.set_alarm("disk")
        with running_worker(tmp_path, f"{url}?heartbeat=1") as worker:
            worker.await_log("amqp_blocked")
            time.sleep(3)  # three heartbeats are not missed
            assert worker.log.count("amqp_blocked") == 1
            assert "amqp_lost" not in worker.log
            own_broker.clear_alarm()
            log.await_events(2)
            assert "amqp_unblocked" in worker.log
            own_broker.set_alarm("disk")
            with pytest.raises(pika.exceptions.AMQPError), channel(f"{url}?blocked_connection_timeout=1") as other:
                emit(other, "c")
            begin = time.monotonic()
            worker.stop()
            assert time.monotonic() - begin < 12
            own_broker.clear_alarm()
    assert log.ids == ["a", "b"]
