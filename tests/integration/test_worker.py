"""The worker, on its own: what comes into the intake is in the log, once, in order, as it was sent."""

import re
import struct
import time

import pika
import pytest
from pika import data as pika_data
from support.producers import channel, emit, emit_packed
from support.running import wait_for
from support.worker import LogText, running_worker

from towerbus.event import Event
from towerbus.intake.messages import KNOCK, PACKED
from towerbus.log.packing import pack
from towerbus.log.record import Record
from towerbus.topics import Topic


@pytest.fixture
def worker(tmp_path, vhost):
    with running_worker(tmp_path, vhost) as started:
        started.await_log("worker_active")
        yield started


def test_an_idle_start_writes_the_fence(worker, vhost):
    with LogText(vhost) as log:
        (fence,) = log.await_records(1)
    assert (fence.offset, fence.events) == (0, ())
    assert f"log_made: epoch {fence.epoch}" in worker.log
    assert f"fence_written: epoch {fence.epoch}, term {fence.term}" in worker.log
    assert abs(fence.term - time.time()) < 60


def test_events_come_out_as_they_went_in(worker, vhost):
    with channel(vhost) as producer, LogText(vhost) as log:
        emit(producer, "one", '{"ä": [1,  2]}'.encode(), key="jobs.status.changed", timestamp=1_700_000_000)
        emit_packed(producer, ["p1", "p2"])
        emit(producer, None, b'{"a":"nameless"}')
        log.await_events(4)
    one, packed, _, nameless = log.events
    assert (one.id, one.topic, one.payload) == ("one", ("jobs", "status.changed"), '{"ä": [1,  2]}'.encode())
    assert one.time == 1_700_000_000
    assert (packed.id, packed.time) == ("p1", 1700.0)
    assert len(nameless.id) == 32
    assert abs(nameless.time - time.time()) < 60


def test_many_become_few_records_and_stay_in_order(worker, vhost):
    with channel(vhost) as producer, LogText(vhost) as log:
        for number in range(0, 3000, 100):
            emit_packed(producer, [f"a{n}" for n in range(number, number + 100)], message_id=f"m{number}")
        emit_packed(producer, [f"b{n}" for n in range(2000)])
        log.await_events(5000)
    assert log.ids == [f"a{n}" for n in range(3000)] + [f"b{n}" for n in range(2000)]
    assert max(len(record.events) for record in log.records) == 256


def test_the_first_record_leaves_at_once_and_the_next_waits(tmp_path, vhost):
    with running_worker(tmp_path, vhost, "--record-pause", "1") as worker, channel(vhost) as producer:
        worker.await_log("worker_active")
        begin = time.monotonic()
        for number in range(30):
            emit(producer, f"e{number}")
        pauses = int(time.monotonic() - begin)
        with LogText(vhost) as log:
            log.await_events(30)
    records = [record for record in log.records if record.events]
    assert 2 <= len(records) <= 2 + pauses
    assert len(records[0].events) < 30


def test_repeats_are_known_also_by_the_next_worker(tmp_path, vhost):
    ids = [f"e{n}" for n in range(50)]
    with channel(vhost) as producer:
        with running_worker(tmp_path, vhost, name="first") as first:
            first.await_log("worker_active")
            log = LogText(vhost)
            for id_ in ids:
                emit(producer, id_)
            emit_packed(producer, [*ids, "x1"])
            log.await_events(51)
            first.stop()
        with running_worker(tmp_path, vhost, name="second") as second:
            second.await_log("worker_active")
            emit_packed(producer, [*ids, "x1", "x2"])
            log.await_events(52)
            second.kill()
        with running_worker(tmp_path, vhost, name="third") as third:
            emit_packed(producer, [*ids, "x1", "x2", "x3"])
            third.await_log("worker_active")
            emit(producer, "x3")
            emit(producer, "x4")
            log.await_events(54)
    assert log.ids == [*ids, "x1", "x2", "x3", "x4"]
    assert "log_read: " in third.log
    log.close()


def test_the_window_reaches_back_by_count(tmp_path, vhost):
    """Far more records than one look takes, each with one event, and from long ago."""
    with running_worker(tmp_path, vhost, name="maker") as maker:
        maker.await_log("worker_active")
        maker.stop()
    with channel(vhost) as writer, LogText(vhost) as log:
        fence = log.await_records(1)[0]
        for number in range(700):
            old = Event(Topic("jobs", "x"), b'{"n":1}', f"old{number}", 1.0)
            write(writer, fence.epoch, fence.term, old)
        with running_worker(tmp_path, vhost) as worker:
            worker.await_log("worker_active")
            emit_packed(writer, ["old0", "old699", "new"])
            assert log.await_events(701)[-1] == "new"
        assert "701 records back; 700 ids" in worker.log


def test_a_higher_term_is_seen_by_a_busy_worker_too(worker, vhost):
    with channel(vhost) as producer, LogText(vhost) as log:
        fence = log.await_records(1)[0]
        # More than the broker sends to one who does not acknowledge.
        for number in range(70):
            emit(producer, f"n{number}")
            log.await_events(number + 1)
        write(producer, fence.epoch, fence.term + 1000, Event(Topic("jobs", "x"), b'{"n":1}', "other", 1.0))
        worker.await_log("superseded")
        worker.await_log("worker_active", times=2)
        emit(producer, "mine")
        log.await_events(72)
    assert log.ids == [*(f"n{number}" for number in range(70)), "other", "mine"]


def test_junk_in_the_log_and_records_of_the_past_are_passed_over(worker, vhost):
    with channel(vhost) as producer, LogText(vhost) as log:
        fence = log.await_records(1)[0]
        producer.basic_publish("", "towerbus.log", b"junk", mandatory=True)
        write(producer, fence.epoch, fence.term - 1, Event(Topic("jobs", "x"), b'{"n":1}', "zombie", 1.0))
        worker.await_log("record_voided")
        worker.await_log("log_junk")
        emit(producer, "zombie")
        log.await_events(1)
    assert log.ids == ["zombie"], "what is void is not in the log, so the event is no repeat"
    assert log.records[-1].term == fence.term


def test_a_higher_term_in_the_log_ends_the_session_at_once(worker, vhost):
    with channel(vhost) as producer, LogText(vhost) as log:
        fence = log.await_records(1)[0]
        write(producer, fence.epoch, fence.term + 1000, Event(Topic("jobs", "x"), b'{"n":1}', "other", 1.0))
        for _ in range(20):
            write(producer, fence.epoch, fence.term + 1000)
        worker.await_log("worker_active", times=2)
        assert worker.log.count("superseded:") == 1, "said once, however many records stand there"
        emit_packed(producer, ["other", "mine"])
        log.await_events(2)
    assert log.ids == ["other", "mine"]
    assert log.records[-1].term == fence.term + 1001


def write(opened, epoch, term, *events):
    """Write a record as a worker does that should not."""
    opened.basic_publish("", "towerbus.log", pack(Record(epoch, term, 0, events)), mandatory=True)


class Raw:
    """A header's value, as bytes."""

    def __init__(self, encoded):
        self.encoded = encoded


@pytest.fixture
def raw_headers(monkeypatch):
    """Lets pika publish what it can't read."""
    encode = pika_data.encode_value

    def encode_raw(pieces, value):
        if isinstance(value, Raw):
            pieces.append(value.encoded)
            return len(value.encoded)
        return encode(pieces, value)

    monkeypatch.setattr(pika_data, "encode_value", encode_raw)


NO_CLOCK = Raw(b"T" + struct.pack(">Q", 2**63))
BAD = {
    "not JSON": (b"hello", "jobs.x", {}, "payload is not a JSON object"),
    "not an object": (b"[1]", "jobs.x", {}, "payload is not a JSON object"),
    "an empty object": (b"{}", "jobs.x", {}, "empty object"),
    "nothing": (b"", "jobs.x", {}, "payload is not a JSON object"),
    "not UTF-8": (b'{"a":"\xff"}', "jobs.x", {}, "payload is not a JSON object"),
    "too large": (b'{"a":"' + b"x" * 5000 + b'"}', "jobs.x", {}, "over the limit of 4096"),
    "no type": (b'{"a":1}', "jobs", {}, "routing key 'jobs' is not of the form group.type"),
    "no group": (b'{"a":1}', ".x", {}, "group"),
    "an impossible type": (b'{"a":1}', "jobs.a b", {}, "type 'a b'"),
    "a key that is not UTF-8": (b'{"a":1}', b"jobs.\xff", {}, "type '"),
    "internal": (b'{"a":1}', "_towerbus.x", {}, "internal"),
    "an id with a space": (b'{"a":1}', "jobs.x", {"message_id": "a b"}, "id 'a b'"),
    "an id that is not UTF-8": (b'{"a":1}', "jobs.x", {"message_id": b"\xff"}, "id "),
    "a long id": (b'{"a":1}', "jobs.x", {"message_id": "x" * 129}, "1 to 128"),
    "not packed": (b"hello", "jobs.x", {"content_type": PACKED}, "not packed events"),
    "packed of another version": (b"\x92\x02\x90", "jobs.x", {"content_type": PACKED}, "version 2"),
    "a user": (b"no", "jobs.x", {"user_id": "tb"}, "payload is not"),
    "one that vanishes": (b"no", "jobs.x", {"expiration": "60000"}, "payload is not"),
    "one for other queues too": (b"no", "jobs.x", {"headers": {"CC": ["log", "intake"]}}, "payload is not"),
    "large headers": (b"no", "jobs.x", {"headers": {"h": "x" * 130_500}}, "payload is not"),
    "a time that no clock has": (b'{"a":1}', "jobs.x", {"headers": {"t": NO_CLOCK}}, "properties can't be read"),
}


def test_bad_messages_are_kept_with_the_reason_and_hold_up_nobody(tmp_path, vhost, raw_headers):
    good = [f"good-{number}" for number in range(len(BAD) + 1)]
    with running_worker(tmp_path, vhost, "--max-payload", "4096") as worker, channel(vhost) as producer:
        worker.await_log("worker_active")
        for id_, (body, key, properties, _) in zip(good[1:], BAD.values(), strict=True):
            emit(producer, None, body, key=key, **properties)
            emit(producer, id_)
        emit(producer, good[0])
        with LogText(vhost) as log:
            assert log.await_events(len(good)) == [*good[1:], good[0]]
        kept = [producer.basic_get("towerbus.dead", auto_ack=True) for _ in BAD]
        assert producer.basic_get("towerbus.dead", auto_ack=True)[0] is None
    assert "amqp_lost" not in worker.log
    for (name, (body, key, properties, reason)), (_, given, kept_body) in zip(BAD.items(), kept, strict=True):
        assert kept_body == body, name
        assert reason in given.headers["towerbus-reason"], name
        assert given.headers["towerbus-routing-key"] == (key if isinstance(key, str) else "jobs.\\xff"), name
        assert given.headers["towerbus-exchange"] == "towerbus"
        assert abs(given.headers["towerbus-time"] - time.time()) < 60
        assert (given.user_id, given.expiration) == (None, None)
        assert given.message_id == properties.get("message_id"), name


def test_a_flood_of_bad_messages_is_few_lines(worker, vhost):
    with channel(vhost) as producer:
        for _ in range(300):
            emit(producer, None, b"hello")
        emit(producer, "last")
        with LogText(vhost) as log:
            log.await_events(1)
        worker.stop()
        assert producer.queue_declare("towerbus.dead", passive=True).method.message_count == 300
    lines = re.findall("dead_lettered: ([0-9]+) messages", worker.log)
    assert sum(map(int, lines)) == 300
    assert len(lines) < 30


def test_knocks_and_empty_messages_are_settled(worker, vhost):
    with channel(vhost) as producer, LogText(vhost) as log:
        producer.basic_publish("towerbus.direct", "intake", b"", pika.BasicProperties(content_type=KNOCK))
        emit_packed(producer, [])
        emit(producer, "a")
        log.await_events(1)
        wait_for(lambda: not left(producer), 10, "the intake to be empty")


def left(opened):
    return opened.queue_declare("towerbus.intake", passive=True).method.message_count
