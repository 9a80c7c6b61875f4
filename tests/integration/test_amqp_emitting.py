"""The emitter over AMQP in a program with threads, with a real broker that stops, freezes, is full and comes back."""

import gc
import logging
import signal
import threading
import time

import pytest
from support import intakes
from support.intakes import connections, numbers, taken, unrepeated
from support.proxy import TO_CLIENT
from support.running import wait_for

from towerbus import Emitter, NotConfirmed, compat
from towerbus.amqp import plain
from towerbus.amqp import publisher as publishing
from towerbus.errors import BusUnavailable, ConfigError, PeerError


@pytest.fixture
def url(vhost):
    """A virtual host with all its objects."""
    intakes.declare_now(vhost)
    return vhost


@pytest.fixture
def own_url(own_broker):
    """One of the broker that may be broken."""
    url = own_broker.vhost()
    intakes.declare_now(url)
    own_broker.settle()
    return url


def through(url, port):
    """The same virtual host, by way of another port."""
    return f"amqp://tb:tb@127.0.0.1:{port}/{url.rpartition('/')[2]}"


def emit(emitter, number, **given):
    return emitter.emit("jobs", "x", b'{"n":%d,"x":""}' % number, **given)


def publisher(emitter):
    """What runs the emitter's connection."""

    def found():
        return [shared.publisher for shared in emitter._way._shared.values() if shared.publisher]

    wait_for(found, 20, "an emit")
    (only,) = found()
    return only


def failed(call, *given, **named):
    """What a call fails with."""
    with pytest.raises(NotConfirmed) as caught:
        call(*given, **named)
    return caught.value


def refused(call, *given, **named):
    """What a call fails with for certain; else its deadline came while another try was under way."""
    for _ in range(20):
        error = failed(call, *given, **named)
        if error.sure:
            return error
    raise AssertionError(f"never for certain: {error}")


class Call(threading.Thread):
    """A call in a thread of its own, with its outcome."""

    def __init__(self, call, *given, **named):
        super().__init__(daemon=True)
        self.outcome = self.error = None
        self._call = lambda: call(*given, **named)
        self.start()

    def run(self):
        try:
            self.outcome = self._call()
        except NotConfirmed as error:
            self.error = error

    def done(self):
        self.join(60)
        assert not self.is_alive(), "it hangs"
        return self


def test_confirmed_is_in_the_intake_byte_for_byte_and_in_order(url):
    with Emitter(url) as emitter:
        assert emit(emitter, 0, id="mine") == "mine"
        ids = emitter.emit_many([{"group": "jobs", "type": n, "payload": {"n": n}} for n in range(1, 700)])
        assert emitter.emit_many([]) == []
        assert emitter.emit("job_events", 42, b'{"n":  700}')
    found = taken(url)
    events = [event for message in found for event in message.events]
    assert [event.id for event in events][:700] == ["mine", *ids]
    assert [event.topic.name for event in events][-2:] == ["jobs-699", "job_events-42"]
    assert events[1].payload == b'{"n":1}'
    assert events[-1].payload == b'{"n":  700}'
    assert max(len(message.events) for message in found) == 256
    assert {(message.properties.delivery_mode, message.packed) for message in found} == {(2, True)}
    assert abs(events[0].time - time.time()) < 600


def test_threads_keep_each_its_order_share_one_connection_and_are_packed_together(url, broker):
    with Emitter(url) as emitter:

        def run(first):
            for n in range(50):
                emit(emitter, first + n)

        emit(emitter, -1)
        calls = [Call(run, 1000 * number) for number in range(10)]
        assert len(connections(broker, url)) == 1
        for call in calls:
            assert call.done().error is None
    found = taken(url)
    for number in range(10):
        assert [n for n in numbers(found) if n // 1000 == number and n >= 0] == [1000 * number + n for n in range(50)]
    assert len(found) < 501, "what several threads have at hand goes together"


def test_threads_that_are_first_at_once_get_one_connection(url, broker):
    with Emitter(url) as emitter:
        together = threading.Barrier(20)

        def run(number):
            together.wait(60)
            emit(emitter, number)

        for call in [Call(run, number) for number in range(20)]:
            assert call.done().error is None
        assert len(connections(broker, url)) == 1
    assert sorted(numbers(taken(url))) == list(range(20))


@pytest.mark.parametrize(
    ("group", "type_", "payload", "id_"),
    [("a b", "x", {"n": 1}, None), ("_towerbus", "x", {"n": 1}, None), ("jobs", "x", {}, None), ("jobs", "x", b"[]", None),
     ("jobs", "x", {"n": object()}, None), ("jobs", "x", {"n": "x" * 2_000_000}, None), ("jobs", "x", {"n": 1}, "a b")],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_sent(url, group, type_, payload, id_):
    with Emitter(url) as emitter:
        with pytest.raises(PeerError):
            emitter.emit(group, type_, payload, id_)
        with pytest.raises(PeerError, match="item 1"):
            emitter.emit_many(
                [{"group": "jobs", "type": "x", "payload": {"n": 1}}, {"group": "jobs", "type": "x", "payload": {}}]
            )
    assert taken(url) == []


def test_a_larger_limit_is_the_workers_business(url):
    with Emitter(url, max_payload=3_000_000) as emitter:
        emitter.emit("jobs", "x", {"n": "x" * 2_000_000})
    assert len(intakes.taken_raw(url)) == 1


def test_the_deadline_is_kept_while_the_broker_is_frozen_and_says_what_is_known(own_broker, own_url):
    with Emitter(own_url, timeout=1.5) as emitter:
        emit(emitter, 0)
        own_broker.freeze()
        sent = Call(emit, emitter, 1, id="sent")
        wait_for(lambda: publisher(emitter)._line.in_flight, 20, "the message in flight")
        behind = Call(emit, emitter, 2, id="behind")
        assert (sent.done().error.ids, sent.error.sure) == (("sent",), False)
        assert (behind.done().error.ids, behind.error.sure) == (("behind",), True)
        assert "within 1.5 s" in str(sent.error)
        own_broker.thaw()
        again = Emitter(own_url, timeout=30)
        emit(again, 1, id="sent")
        emit(again, 2, id="behind")
        again.close()
    assert [intakes.number(event) for event in unrepeated(taken(own_url))] == [0, 1, 2]


@pytest.mark.seconds(120)
def test_a_broker_that_is_killed_under_load_has_all_that_was_confirmed_in_order(own_broker, own_url):
    confirmed, errors = [[] for _ in range(5)], []
    stop = threading.Event()

    def run(number):
        n = 0
        while not stop.is_set():
            emit(emitter, number * 1_000_000 + n, id=f"{number}-{n}")
            confirmed[number].append(number * 1_000_000 + n)
            n += 1

    with Emitter(own_url, timeout=60) as emitter:
        calls = [Call(run, number) for number in range(5)]
        wait_for(lambda: all(len(each) > 20 for each in confirmed), 60, "events")
        own_broker.kill()
        before = [len(each) for each in confirmed]
        own_broker.start()
        wait_for(lambda: all(len(each) > count + 20 for each, count in zip(confirmed, before, strict=True)), 60, "more")
        stop.set()
        errors = [call.done().error for call in calls]
    assert errors == [None] * 5
    found = [intakes.number(event) for event in unrepeated(taken(own_url))]
    for number in range(5):
        assert [n for n in found if n // 1_000_000 == number] == confirmed[number]


def test_what_was_in_doubt_is_sent_again_with_the_same_ids(url, broker, blocking_proxy):
    proxy = blocking_proxy(broker.port)
    with Emitter(through(url, proxy.port)) as emitter:
        emit(emitter, 0)
        proxy.blackhole(TO_CLIENT)
        call = Call(emit, emitter, 1, id="doubtful")
        wait_for(lambda: broker.queues(url)["towerbus.intake"]["messages"] == 2, 20, "the message")
        proxy.cut()
        proxy.heal()
        assert call.done().outcome == "doubtful"
    found = taken(url)
    assert [(message.id, [event.id for event in message.events]) for message in found[1:]] == [
        ("doubtful", ["doubtful"])
    ] * 2


def test_a_connection_that_answers_no_more_is_given_up_for_a_new_one_within_the_deadline(url, broker, blocking_proxy):
    proxy = blocking_proxy(broker.port)
    with Emitter(through(url, proxy.port), timeout=30) as emitter:
        emit(emitter, 0)
        proxy.blackhole()
        call = Call(emit, emitter, 1)
        wait_for(lambda: "no answer to a message" in publisher(emitter)._why, 20, "the end of its patience")
        proxy.heal()
        assert call.done().outcome
    assert [intakes.number(event) for event in unrepeated(taken(url))] == [0, 1]


def test_a_full_intake_is_waited_for_and_named(vhost):
    intakes.declare_now(vhost, intake_max_bytes=20_000)
    large = {"n": 1, "x": "x" * 30_000}
    with Emitter(vhost, timeout=1) as emitter:
        for _ in range(100):
            try:
                emitter.emit("jobs", "x", large)
            except NotConfirmed as error:
                if error.sure:  # else the deadline came while another try was under way
                    assert "intake full" in str(error)
                    break
        else:
            pytest.fail("the intake takes everything, or no try is ever over in time")
        patient = Emitter(vhost, timeout=60)
        call = Call(patient.emit, "jobs", "x", large, "late")
        wait_for(lambda: "intake full" in publisher(patient)._why, 20, "the refusal")
        found = taken(vhost)
        assert call.done().outcome == "late"
        patient.close()
    found += taken(vhost)
    assert [event.id for event in unrepeated(found)][-1] == "late"


def test_a_message_that_reaches_no_queue_is_not_confirmed(url):
    with intakes.channel(url) as channel:
        channel.queue_unbind("towerbus.intake", "towerbus.direct", "intake")
        with Emitter(url, timeout=1) as emitter:
            assert "NO_ROUTE" in str(refused(emit, emitter, 1))
        with Emitter(url, timeout=30) as emitter:
            late = Call(emit, emitter, 2)
            channel.queue_bind("towerbus.intake", "towerbus.direct", "intake")
            assert late.done().outcome
    assert numbers(taken(url)) == [2]


def test_an_alarm_is_waited_for(own_broker, own_url, monkeypatch):
    monkeypatch.setattr(plain, "STALLED", 0.3)  # an alarm is no stall, however long it lasts
    with Emitter(own_url, timeout=1) as emitter, Emitter(own_url, timeout=60) as patient:
        emit(emitter, 0)
        own_broker.set_alarm("memory")
        # What makes the broker block us, it has read.
        failed(emit, emitter, 1, id="1")
        wait_for(lambda: publisher(emitter)._blocked, 20, "the broker's word")
        error = failed(emit, emitter, 2)
        assert (error.sure, "takes nothing" in str(error)) == (True, True)
        session = publisher(emitter)._session
        call = Call(emit, patient, 3)
        own_broker.clear_alarm()
        assert call.done().outcome
        assert publisher(emitter)._session is session
        emit(emitter, 4)
    assert [n for n in numbers(taken(own_url)) if n != 1] == [0, 3, 4]


def test_a_wrong_password_is_told_at_once_and_appears_nowhere(url, caplog):
    caplog.set_level(logging.DEBUG)
    with Emitter(url.replace("tb:tb@", "tb:verysecret@"), timeout=60) as emitter:
        error = failed(emit, emitter, 1)
    assert isinstance(error, BusUnavailable)
    assert "password" in str(error)
    assert "within" not in str(error), "its time was not over"
    assert "verysecret" not in caplog.text + str(error)
    with pytest.raises(ConfigError) as caught:
        Emitter("amqp://tb:verysecret/x@h/v")
    assert "verysecret" not in str(caught.value)


def test_a_missing_virtual_host_is_told_at_once(broker):
    with Emitter(broker.url_of("nowhere"), timeout=60) as emitter:
        error = failed(emit, emitter, 1)
    assert "nowhere" in str(error)
    assert "within" not in str(error), "its time was not over"


def test_a_user_who_may_only_write_to_the_exchange_may_emit(url, broker):
    name = url.rpartition("/")[2]
    broker.api("PUT", "/api/users/writer", {"password": "pw", "tags": ""})
    rights = {"configure": "^$", "write": r"^towerbus\.direct$", "read": "^$"}
    broker.api("PUT", f"/api/permissions/{name}/writer", rights)
    with Emitter(url.replace("tb:tb@", "writer:pw@")) as emitter:
        emit(emitter, 1)
    broker.api("PUT", f"/api/permissions/{name}/writer", rights | {"write": "^$"})
    with Emitter(url.replace("tb:tb@", "writer:pw@"), timeout=2) as emitter:
        error = failed(emit, emitter, 2)
    assert "permission" in str(error)
    assert numbers(taken(url)) == [1]
    broker.api("DELETE", "/api/users/writer")


def test_before_a_worker_ran_it_waits_and_says_what_is_missing(vhost):
    with Emitter(vhost, timeout=1) as emitter, Emitter(vhost, timeout=60) as patient:
        assert "towerbus-worker" in str(failed(emit, emitter, 1))
        call = Call(emit, patient, 2)
        wait_for(lambda: "towerbus-worker" in publisher(patient)._why, 20, "the reason")
        intakes.declare_now(vhost)
        assert call.done().outcome
    assert numbers(taken(vhost)) == [2]


def test_another_prefix(vhost):
    intakes.declare_now(f"{vhost}?prefix=other")
    with Emitter(f"{vhost}?prefix=other") as emitter:
        emit(emitter, 1)
    assert numbers(taken(vhost, "other")) == [1]


def test_heartbeats_are_kept_while_the_program_does_nothing(url, broker):
    with Emitter(f"{url}?heartbeat=1") as emitter:
        emit(emitter, 0)
        (before,) = connections(broker, url)
        checker = publisher(emitter)._session._connection._heartbeat_checker
        wait_for(lambda: checker._heartbeat_frames_sent > 7, 60, "heartbeats")
        emit(emitter, 1)
        assert connections(broker, url) == [before]


def test_a_frozen_broker_is_noticed_by_its_silence(own_broker, own_url):
    with Emitter(f"{own_url}?heartbeat=1") as emitter:
        emit(emitter, 0)
        own_broker.freeze()
        wait_for(lambda: "no heartbeat" in publisher(emitter)._why, 20, "the silence")
        own_broker.thaw()
        emit(emitter, 1)
    assert numbers(taken(own_url)) == [0, 1]


def test_a_close_publishes_what_waits_and_a_later_emit_makes_a_new_connection(url, broker):
    emitter = Emitter(url)
    emitter.close()
    emit(emitter, 0)
    calls = [
        Call(emitter.emit_many, [{"group": "jobs", "type": "x", "payload": b'{"n":1,"x":""}'}] * 2000) for _ in range(3)
    ]
    wait_for(lambda: publisher(emitter)._line.bytes, 20, "something that waits")
    emitter.close()
    for call in calls:
        assert len(call.done().outcome) == 2000
    emit(emitter, 9)
    emitter.close()
    wait_for(lambda: connections(broker, url) == [], 20, "the end of the connections")
    assert len(numbers(taken(url))) == 6002


def test_who_finds_it_closed_at_once_shares_the_next_connection(url, broker):
    """Each makes one only where nobody else has: a connection that nobody knows of would never be closed."""
    emitter, stop = Emitter(url), threading.Event()

    def busy(number):
        while not stop.is_set():
            emit(emitter, number)

    calls = [Call(busy, number) for number in range(8)]
    try:
        for _ in range(40):
            publisher(emitter)
            emitter.close()
    finally:
        stop.set()
    for call in calls:
        call.done()
    emitter.close()
    wait_for(lambda: connections(broker, url) == [], 20, "the end of the connections")


def test_a_user_whose_permission_is_missing_is_told_so_whenever_its_time_ends(url, broker, caplog):
    """Every connection comes about, and is ended by its first message."""
    name = url.rpartition("/")[2]
    broker.api("PUT", "/api/users/reader", {"password": "pw", "tags": ""})
    broker.api("PUT", f"/api/permissions/{name}/reader", {"configure": "^$", "write": "^$", "read": "^$"})
    try:
        with Emitter(url.replace("tb:tb@", "reader:pw@"), timeout=0.7) as emitter:
            for _ in range(5):
                assert "permission" in str(failed(emit, emitter, 1))
        assert len(caplog.records) < 12, "it takes its time before it tries again"
    finally:
        broker.api("DELETE", "/api/users/reader")


def test_a_close_is_bounded(own_broker, own_url):
    emitter = Emitter(own_url, timeout=60)
    emit(emitter, 0)
    own_broker.freeze()
    call = Call(emit, emitter, 1)
    wait_for(lambda: publisher(emitter)._line.in_flight, 20, "the message in flight")
    emitter.close()
    assert call.is_alive(), "whoever waits goes on waiting"
    own_broker.thaw()
    assert call.done().outcome
    assert set(numbers(taken(own_url))) == {0, 1}


def test_one_that_is_interrupted_is_not_sent_later(own_broker, own_url):
    emitter = Emitter(own_url, timeout=60)
    emit(emitter, 0)
    own_broker.freeze()
    sent = Call(emit, emitter, 1)
    wait_for(lambda: publisher(emitter)._line.in_flight, 20, "the message in flight")
    main = threading.get_ident()
    interrupting = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        emit(emitter, 2)
    own_broker.thaw()
    assert sent.done().outcome
    emit(emitter, 3)
    emitter.close()
    assert [intakes.number(event) for event in unrepeated(taken(own_url))] == [0, 1, 3]


def test_a_fault_in_its_thread_ends_nothing(url, caplog):
    def fault():
        raise AssertionError("made by a test")

    with Emitter(url) as emitter:
        emit(emitter, 0)
        publisher(emitter)._loop.add_callback_threadsafe(fault)
        emit(emitter, 1)
        emit(emitter, 2)
    assert "made by a test" in caplog.text
    assert [intakes.number(event) for event in unrepeated(taken(url))] == [0, 1, 2]


def test_an_emitter_that_is_dropped_leaves_no_thread_and_no_connection(url, broker, monkeypatch):
    monkeypatch.setattr(publishing, "LOOKS", 0.05)
    emitter = Emitter(url)
    emit(emitter, 0)
    thread = publisher(emitter)._thread
    del emitter
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    wait_for(lambda: connections(broker, url) == [], 20, "the end of the connection")


def test_pikas_words_stay_out_of_the_log_but_for_those_who_want_them(caplog):
    with Emitter("amqp://127.0.0.1:9", timeout=0.5) as emitter:
        failed(emit, emitter, 1)
    assert [record.name for record in caplog.records if record.levelno > logging.INFO] == []
    caplog.set_level(logging.DEBUG)
    with Emitter("amqp://127.0.0.1:9", timeout=0.5) as emitter:
        failed(emit, emitter, 1)
    assert [record.name for record in caplog.records if record.levelno > logging.INFO]


def test_a_handler_of_logs_that_emits_them_does_not_wait_for_itself(own_broker, own_url):
    class Emits(logging.Handler):
        def emit(self, record):
            try:
                emitter.emit("logs", record.levelname, {"text": record.getMessage()})
            except NotConfirmed as error:
                errors.append(str(error))

    errors, handler = [], Emits(logging.WARNING)
    logging.getLogger("towerbus.emitter").addHandler(handler)
    try:
        with Emitter(own_url, timeout=60) as emitter:
            emit(emitter, 0)
            own_broker.kill()
            wait_for(lambda: errors, 20, "the line in the log")
            own_broker.start()
            emit(emitter, 1)
    finally:
        logging.getLogger("towerbus.emitter").removeHandler(handler)
    assert "own thread" in errors[0]
    assert [intakes.number(event) for event in unrepeated(taken(own_url))] == [0, 1]


def test_towers_own_call(url, monkeypatch):
    monkeypatch.setenv("TOWERBUS_URL", url)
    monkeypatch.setattr(compat, "_emitters", [])
    compat.emit_channel_notification("job_events-42", {"counter": 1})
    compat._emitters[0].close()
    ((event,),) = [message.events for message in taken(url)]
    assert (event.topic, event.payload) == (("job_events", "42"), b'{"counter":1}')


def test_a_token_is_not_needed_and_that_is_said(url, caplog):
    with Emitter(url, "some-token") as emitter:
        emit(emitter, 1)
    assert "no token is needed" in caplog.text
    assert "some-token" not in caplog.text
