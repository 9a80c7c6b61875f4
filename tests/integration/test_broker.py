"""The tests' own RabbitMQ does what the other tests rely on."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pika
import pika.exceptions
import pytest
import pytest_twisted
from support import rabbitmq_node
from support.broker import Broker
from support.certificates import Certificates
from support.running import wait_for
from twisted.internet import task
from twisted.internet.threads import deferToThread

PERSISTENT = pika.BasicProperties(delivery_mode=2)
QUORUM = {"x-queue-type": "quorum"}
STREAM = {"x-queue-type": "stream", "x-max-age": "1D"}


def connected(url, **given):
    parameters = pika.URLParameters(url)
    for name, value in given.items():
        setattr(parameters, name, value)
    return pika.BlockingConnection(parameters)


def declared(connection, **queues):
    """A channel with confirms, and durable queues with these arguments."""
    channel = connection.channel()
    channel.confirm_delivery()
    for name, arguments in queues.items():
        channel.queue_declare(name, durable=True, arguments=arguments)
    return channel


def publish(channel, queue, body=b"hello"):
    channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)


def test_vhosts_are_fresh_and_go_with_all_they_hold(broker, vhost):
    other = broker.vhost("a name/with ünusual signs")
    for url in (vhost, other):
        with connected(url) as connection:
            channel = declared(connection, only=None)
            publish(channel, "only", url.encode())
    for url in (vhost, other):
        assert list(broker.queues(url)) == ["only"]
        with connected(url) as connection:
            assert connection.channel().basic_get("only", auto_ack=True)[2] == url.encode()
    broker.drop_vhost(other)
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="not found"):
        connected(other)
    assert broker.vhost("a name/with ünusual signs") == other
    assert broker.queues(other) == {}
    broker.drop_vhost("a name/with ünusual signs")


def test_queues_and_consumers_are_listed_as_they_are_now(broker, vhost):
    expiring = {"x-expires": 600_000}
    with connected(vhost) as connection:
        channel = declared(connection, q=QUORUM | {"x-single-active-consumer": True}, s=STREAM, c=expiring)
        for name in ("q", "q", "q", "s", "s", "c"):
            publish(channel, name)
        channel.basic_qos(prefetch_count=2)
        for _ in range(2):
            channel.basic_consume("q", lambda *_: None)
        channel.basic_consume("s", lambda *_: None, arguments={"x-stream-offset": "next"})
        channel.queue_declare("mine", exclusive=True)
        wait_for(lambda: broker.queues(vhost)["q"]["consumers"] == 2, 10, "both")
        queues = broker.queues(vhost)
        assert {name: (queue["type"], queue["messages"]) for name, queue in queues.items()} == {
            "q": ("quorum", 3), "s": ("stream", 2), "c": ("classic", 1), "mine": ("classic", 0),
        }  # fmt: skip
        assert (queues["q"]["messages_ready"], queues["q"]["messages_unacknowledged"]) == (1, 2)
        assert [name for name, queue in queues.items() if queue["exclusive"]] == ["mine"]
        assert {queue["state"] for queue in queues.values()} == {"running"}
        assert queues["s"]["arguments"] == STREAM
        assert queues["c"]["arguments"] == expiring
        consumers = broker.consumers(vhost)
        assert sorted((each["queue"], each["activity_status"]) for each in consumers) == [
            ("q", "single_active"), ("q", "waiting"), ("s", "up"),
        ]  # fmt: skip
        assert {each["prefetch_count"] for each in consumers} == {2}
        assert [each["arguments"] for each in consumers if each["queue"] == "s"] == [{"x-stream-offset": "next"}]
    wait_for(lambda: broker.consumers(vhost) == [], 10, "their end")
    assert broker.queues(vhost)["q"]["messages_ready"] == 3


def test_its_own_tools(broker, vhost):
    assert broker.url in broker.url_of("tb")
    assert vhost.rpartition("/")[2] in broker.ctl("list_vhosts")
    with pytest.raises(AssertionError, match="list_nothing"):
        broker.ctl("list_nothing")
    assert broker.evaluate('io:put_chars("hello")') == "hello"
    with pytest.raises(AssertionError, match="badarith"):
        broker.evaluate("1 / 0")
    assert broker.api("GET", "/api/whoami")["name"] == "tb"
    with pytest.raises(AssertionError, match="GET /api/vhosts/none: 404"):
        broker.api("GET", "/api/vhosts/none")
    assert "started TCP listener" in broker.console


def test_confirmed_messages_survive_a_kill(own_broker):
    vhost = own_broker.vhost()
    with connected(vhost) as connection:
        channel = declared(connection, q=QUORUM, s=STREAM, c=None)
        for name in ("q", "s", "c"):
            publish(channel, name)
        own_broker.settle()
    own_broker.kill()
    assert not own_broker.running
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connected(vhost)
    own_broker.start()
    own_broker.await_queues(vhost)
    assert {name: queue["messages"] for name, queue in own_broker.queues(vhost).items()} == {"q": 1, "s": 1, "c": 1}
    with connected(vhost) as connection:
        channel = connection.channel()
        assert [channel.basic_get(name, auto_ack=True)[2] for name in ("q", "c")] == [b"hello"] * 2


@pytest_twisted.ensureDeferred
@pytest.mark.seconds(120)
async def test_a_restart_in_order_ends_connections_with_a_word(own_broker):
    url, turns = own_broker.url, []
    connection = connected(url)
    turning = task.LoopingCall(lambda: turns.append(None))
    ended = turning.start(0.05)
    await deferToThread(own_broker.restart)
    turning.stop()
    await ended
    assert len(turns) > 5, "the reactor did not go on meanwhile"
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="CONNECTION_FORCED"):
        connection.process_data_events(10)
    assert own_broker.url == url
    connected(url).close()


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_an_alarm_blocks_who_publishes(own_broker, resource):
    vhost, told = own_broker.vhost(), []
    with connected(vhost) as connection:
        connection.add_on_connection_blocked_callback(lambda _, frame: told.append(frame.method.reason))
        connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
        declared(connection, c=None)
        own_broker.set_alarm(resource)
        assert own_broker.alarms == {resource}
        connection.channel().basic_publish("", "c", b"hello")
        wait_for(lambda: connection.process_data_events(0.05) or told, 10, "the word")
        assert f"low on {resource}" in told[0]
        own_broker.clear_alarm()
        assert own_broker.alarms == set()
        wait_for(lambda: connection.process_data_events(0.05) or told[1:], 10, "the other word")
        assert told[1:] == ["unblocked"]
        wait_for(lambda: own_broker.queues(vhost)["c"]["messages"] == 1, 10, "the message")


def test_a_frozen_node_keeps_connections_and_answers_nothing(own_broker):
    with connected(own_broker.vhost()) as connection:
        channel = connection.channel()
        channel.queue_declare("c")
        own_broker.freeze()
        try:
            assert own_broker.running
            with socket.create_connection(("127.0.0.1", own_broker.port), 10) as other:  # the kernel accepts
                other.sendall(b"AMQP\0\0\x09\x01")
                other.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    other.recv(1)
                channel.basic_publish("", "c", b"hello")
                own_broker.thaw()
                other.settimeout(20)
                assert other.recv(1) == b"\x01"
        finally:
            own_broker.thaw()
        assert channel.basic_get("c", auto_ack=True)[2] == b"hello"


def test_recovering_mends_all_of_it(own_broker):
    own_broker.set_alarm("disk")
    own_broker.freeze()
    own_broker.recover()
    assert own_broker.alarms == set()
    connected(own_broker.url).close()


def test_tls_shows_a_certificate_of_its_authority(broker, tmp_path):
    def answer(context, name="127.0.0.1"):
        plain = socket.create_connection(("127.0.0.1", broker.tls_port), 10)
        with plain, context.wrap_socket(plain, server_hostname=name) as wrapped:
            wrapped.sendall(b"AMQP\0\0\x09\x01")
            return wrapped.recv(1)

    trusting = ssl.create_default_context(cafile=broker.certificates.authority)
    assert answer(trusting) == answer(trusting, "localhost") == b"\x01"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        answer(trusting, "elsewhere.example")
    stranger = Certificates(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        answer(ssl.create_default_context(cafile=stranger.authority))
    key, chain = broker.certificates.issue("client@towerbus.example")
    trusting.load_cert_chain(chain, key)
    assert answer(trusting) == b"\x01"
    key, chain = stranger.issue("client@towerbus.example")
    trusting.load_cert_chain(chain, key)
    # What the client sees is the alert, or already the end of the connection.
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        assert answer(trusting)


def test_a_second_node_beside_the_first_with_its_own_ways(broker):
    with Broker(tls="mutual", config={"heartbeat": 7}) as second:
        assert {second.port, second.tls_port, second.management_port}.isdisjoint(
            {broker.port, broker.tls_port, broker.management_port}
        )
        context = ssl.create_default_context(cafile=second.certificates.authority)
        options = pika.SSLOptions(context, "127.0.0.1")
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connected(second.url_of("tb", tls=True), ssl_options=options)
        key, chain = second.certificates.issue("client@towerbus.example")
        context.load_cert_chain(chain, key)
        with connected(second.url_of("tb", tls=True), ssl_options=options) as connection:
            assert connection._impl.params.ssl_options is not None
        with connected(second.url) as connection:
            assert connection._impl._heartbeat_checker._timeout == 7
        directory, kept = second.directory, second._kept
        marked = kept.processes()
        assert len(marked) >= 2
    assert not directory.exists()
    assert not set(marked) & set(kept.processes())
    assert broker.running


def test_a_node_that_cannot_start_says_why_and_leaves_nothing():
    node = Broker(config={"no.such.setting": "true"})
    with pytest.raises(AssertionError, match=r"(?s)has ended with 1:.*no\.such\.setting"), node:
        pass
    assert not node.directory.exists()


def test_without_rabbitmq_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(rabbitmq_node, "SCRIPTS", Path("/nonexistent"))
    with pytest.raises(AssertionError, match="sudo apt-get install rabbitmq-server"), Broker():
        pass


def test_a_killed_test_run_leaves_nothing():
    script = (
        "import sys\n"
        "from support.broker import Broker\n"
        "node = Broker()\n"
        "node.start()\n"
        "print(node.directory, *node._kept.processes(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    directory, *pids = run.stdout.readline().split()
    assert len(pids) >= 2
    before = time.monotonic()
    os.kill(run.pid, signal.SIGKILL)
    wait_for(lambda: not Path(directory).exists(), 20, "the directory's end")
    run.communicate()
    left = [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert not left, time.monotonic() - before
