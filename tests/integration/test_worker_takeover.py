"""Two workers under load: whatever ends the active one, the other goes on; nothing is lost, repeated, or out of order."""

import os
import signal
import time
from contextlib import contextmanager

import pytest
from support.producers import Producer, channel, emit
from support.running import wait_for
from support.worker import LogText, running_worker

HEARTBEAT = "heartbeat=1"


@pytest.fixture
def two(tmp_path, vhost, broker, blocking_proxy):
    """An active worker, which reaches the broker through a proxy, and one that stands by."""
    proxy = blocking_proxy(broker.port)
    cuttable = vhost.replace(f":{broker.port}/", f":{proxy.port}/")
    with running_worker(tmp_path, f"{cuttable}?{HEARTBEAT}", name="active") as active:
        active.await_log("worker_active")
        with running_worker(tmp_path, f"{vhost}?{HEARTBEAT}", name="standby") as standby:
            standby.await_log("worker_standby")
            active.proxy = proxy
            yield active, standby


@contextmanager
def load(url, log):
    """Producers at work: one of single messages, and one of packed ones. At the end all that they emitted is in the log, once."""
    with Producer(url, "single") as single, Producer(url, "packed", events=25) as packed:
        log.await_events(200)
        yield
        log.await_events(len(log.ids) + 200)
    log.await_events(len(single.confirmed) + len(packed.confirmed))
    for producer in (single, packed):
        mine = [id_ for id_ in log.ids if id_.startswith(producer.name)]
        assert mine == producer.confirmed
    assert len(log.ids) == len(single.confirmed) + len(packed.confirmed)


@pytest.mark.parametrize("end", ["kill", "stop", "cut"])
def test_the_standby_takes_over_within_a_second(two, vhost, end, record_property, capsys):
    active, standby = two
    with LogText(vhost) as log, load(vhost, log):
        before, began = log.records[-1].term, time.monotonic()
        {"kill": active.process.kill, "stop": active.process.terminate, "cut": active.proxy.cut}[end]()
        taken = log.await_term(before + 1) - began
    record_property("seconds", taken)
    with capsys.disabled():
        print(f" [take-over after {end}: {taken:.3f} s]", end="")
    if end == "stop":
        assert active.process.wait(15) in {0, -signal.SIGTERM}, active.log
    standby.await_log("worker_active")
    if end == "cut":
        active.await_log("worker_standby", times=2)
    terms = [record.term for record in log.records]
    assert terms == sorted(terms)
    assert len(set(terms)) == 2
    assert "voided" not in standby.log


def test_a_worker_that_was_frozen_does_no_harm(two, vhost):
    active, standby = two
    with LogText(vhost) as log, load(vhost, log):
        os.kill(active.process.pid, signal.SIGSTOP)
        standby.await_log("worker_active")
        log.await_events(len(log.ids) + 200)
        os.kill(active.process.pid, signal.SIGCONT)
        active.await_log("worker_standby", times=2)
    assert "worker_active" not in active.log.split("amqp_lost")[1]


def test_an_idle_intake_is_taken_over_too(two, vhost):
    active, standby = two
    active.kill()
    standby.await_log("worker_active")


def test_the_log_is_made_anew_at_once_and_has_one_epoch(two, vhost):
    active, standby = two
    with channel(vhost) as producer:
        emit(producer, "before")
        with LogText(vhost) as log:
            log.await_events(1)
            old = log.records[0].epoch
        producer.queue_delete("towerbus.log")
        wait_for(lambda: (active.log + standby.log).count("log_made") == 2, 20, "the new log")
        emit(producer, "after")
    with LogText(vhost) as log:
        log.await_events(1)
        assert log.ids == ["after"]
        assert (log.records[0].offset, log.records[0].events) == (0, ())
        epochs = {record.epoch for record in log.records}
    assert len(epochs) == 1
    assert epochs != {old}
    for worker in two:
        assert "was deleted" in worker.log


def test_a_log_that_was_deleted_while_no_worker_ran_is_made_anew(tmp_path, vhost):
    with running_worker(tmp_path, vhost, name="first") as first:
        first.await_log("worker_active")
        first.stop()
    with channel(vhost) as producer, LogText(vhost) as log:
        old = log.await_records(1)[0]
        producer.queue_delete("towerbus.log")
    with running_worker(tmp_path, vhost, name="second") as second:
        second.await_log("worker_active")
        with LogText(vhost) as log:
            new = log.await_records(1)[0]
    # Terms count within one log: this one begins with the time in seconds, which may be that of the old one.
    assert new.epoch != old.epoch
