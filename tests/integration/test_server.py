"""The server, on its own: it follows the log through everything, tells how it is, and never keeps a loss to itself."""

import contextlib
import signal
import socket
import subprocess
import time

import pytest
from support.log_writer import LogWriter, numbered
from support.running import environment, wait_for
from support.server import BIN, V1, options, running_server, token
from support.set_back import library
from support.worker import running_worker

from towerbus.positions import parse

SMALL = {"x-max-length-bytes": 200_000, "x-stream-max-segment-size-bytes": 50_000}
"""A log that lets go of its records soon."""


@pytest.fixture
def bus(tmp_path, vhost):
    """A server with its worker."""
    with running_worker(tmp_path, vhost), running_server(tmp_path, vhost) as server:
        server.await_ready()
        yield server


def test_events_go_all_the_way_and_it_says_so(bus):
    with V1(bus) as client:
        assert client.told("groups_current") == ["jobs-x"]
        assert bus.emit(1, 2, 3) == 202
        assert client.until(3) == [1, 2, 3]
        assert bus.get("/healthz") == (200, {"alive": True})
        status, said = bus.get("/readyz")
        assert (status, said["ready"], said["broken"]) == (200, True, {})
        assert said["canary"]["age"] < 2.5
        assert said["positions"]["end"] >= client.positions[-1]
        _, metrics = bus.get("/metrics")
        for line in ('towerbus_clients{dialect="towerbus.v1"} 1.0', "towerbus_deliveries_total", "towerbus_canary_age_seconds 0",
                     'towerbus_bus_connected{connection="log"} 1.0', 'towerbus_bus_broken{hop="worker"} 0.0'):  # fmt: skip
            assert line in metrics
        assert bus.emit(1, topic=("_towerbus", "x")) == 400


def test_canaries_are_seen_by_nobody(bus):
    with V1(bus, {"jobs": ["*"], "_towerbus": ["*", "canary"]}) as client:
        assert not [name for name in client.told("groups_current") if "towerbus" in name]
        time.sleep(2.5)  # two canaries at the least
        assert bus.emit(1) == 202
        assert client.until(1) == [1]
        position = client.positions[-1]
    with V1(bus, {"jobs": ["*"]}, last=100) as client:
        assert client.until(1) == [1]
        assert client.positions == [position]


def test_it_goes_on_where_it_was_when_the_broker_was_killed(tmp_path, own_broker):
    url = own_broker.vhost()
    with running_worker(tmp_path, url), running_server(tmp_path, url) as server:
        server.await_ready()
        own_broker.settle()
        with V1(server) as client:
            for number in range(20):
                server.emit_surely(number)
            client.until(10)
            own_broker.kill()
            server.await_broken("broker", "intake", seconds=5)
            own_broker.start()
            for number in range(20, 40):
                server.emit_surely(number)
            assert client.until(40) == list(range(40))
            assert client.positions == sorted(set(client.positions), key=client.positions.index)
            server.await_ready()
            assert not [message for message in client.others if "gap" in message]
            position = client.positions[9]
        with V1(server, since=position) as back:
            assert back.told("recovered")
            assert back.until(30) == list(range(10, 40))


def test_a_broker_that_hangs_is_told_within_five_seconds_and_heals(tmp_path, own_broker):
    url = own_broker.vhost()
    with running_worker(tmp_path, url), running_server(tmp_path, url) as server:
        server.await_ready()
        with V1(server) as client:
            client.told("groups_current")
            own_broker.freeze()
            begun = time.monotonic()
            try:
                since = client.told("stale", seconds=5)["since"]
                assert time.monotonic() - begun < 5
                assert abs(since - time.time()) < 5
                status, broken = server.ready()
                assert status == 503
                assert broken.keys() <= {"broker", "intake"}
                assert server.get("/healthz")[0] == 200
                server.await_broken("broker", seconds=20)
            finally:
                own_broker.thaw()
            client.read(lambda _: client.stale[-1:] == [False])
            assert len(client.stale) == 2, "told once, and taken back once"
            server.await_ready()
            server.emit_surely(1)
            assert client.until(1) == [1]


def test_a_worker_that_is_gone_is_named(tmp_path, vhost):
    with running_server(tmp_path, vhost) as server, running_worker(tmp_path, vhost) as worker:
        server.await_ready()
        worker.kill()
        assert "towerbus-worker" in server.await_broken("worker", seconds=6)
        assert server.emit(1) == 202, "the intake still takes events"
        with V1(server) as client:
            assert client.told("stale", seconds=5)["since"]
            with running_worker(tmp_path, vhost, name="next"):
                server.await_ready()
                assert client.until(1) == [1]
                client.read(lambda _: client.stale[-1:] == [False])


def test_who_comes_back_with_an_old_position_gets_all_of_it(tmp_path, vhost):
    with running_worker(tmp_path, vhost), running_server(tmp_path, vhost, "--tail-bytes", "2000") as server:
        server.await_ready()
        with V1(server) as client:
            for first in range(0, 600, 50):
                assert server.emit(*range(first, first + 50)) == 202
            assert client.until(600) == list(range(600))
        with contextlib.ExitStack() as stack:
            back = [stack.enter_context(V1(server, since=client.positions[at])) for at in (0, 0, 299, 598)]
            server.emit_surely(600)
            for at, each in zip((0, 0, 299, 598), back, strict=True):
                assert each.told("recovered")
                assert each.until(600 - at) == list(range(at + 1, 601))
                assert each.positions[: 599 - at] == client.positions[at + 1 :]


def test_a_log_that_is_deleted_is_told_and_the_next_one_is_read(bus, tmp_path, vhost):
    with V1(bus) as client:
        bus.emit_surely(1)
        position = client.until(1) and client.positions[0]
        with LogWriter(vhost) as writer:
            writer.delete()
        gap = client.told("gap", seconds=30)
        # Records of the server's own may stand between the event and the end.
        assert parse(gap["from"])[:2] == parse(position)[:2]
        assert parse(gap["from"]) >= parse(position)
        assert "anew" in gap["reason"]
        bus.await_ready()
        bus.emit_surely(2)
        assert client.until(2) == [1, 2]
        assert client.positions[1].partition("-")[0] != position.partition("-")[0]
    with V1(bus, since=position) as back:
        assert back.told("recovered") is False
        assert back.told("lost")["from"] == position
        assert back.until(1) == [2]


def test_positions_from_the_future_and_of_another_log_are_not_believed(bus):
    with V1(bus) as client:
        bus.emit_surely(1)
        epoch, term, offset, place = (client.until(1) and client.positions[0]).split("-")
    for position in (
        f"{epoch}-{term}-{int(offset) + 1000}-{place}",
        f"{epoch}-{int(term) + 1}-{offset}-{place}",
        f"abc-{term}-1-1",
    ):
        with V1(bus, since=position) as client:
            assert client.told("recovered", seconds=10) is False
            assert client.told("lost")["from"] == position


def test_what_cannot_be_read_is_told_and_passed_over(bus, vhost):
    with V1(bus) as client:
        bus.emit_surely(1)
        client.until(1)
        with LogWriter(vhost) as writer:
            writer.raw(b"junk")
        gap = client.told("gap")
        assert "no record" in gap["reason"]
        bus.emit_surely(2)
        assert client.until(2) == [1, 2]
        assert "towerbus_log_unreadable_total 1.0" in bus.get("/metrics")[1]


def test_retention_that_overtakes_a_server_that_was_stopped_is_told(tmp_path, vhost):
    with LogWriter(vhost, **SMALL) as writer:
        writer.declare().fence()
        with running_server(tmp_path, vhost) as server:
            wait_for(lambda: server.port("--listen"), 40, "the WebSocket")
            with V1(server) as client:
                client.told("groups_current")
                writer.write(*numbered(0, address=("jobs", "x")))
                assert client.until(1) == [0]
                server.process.send_signal(signal.SIGSTOP)
                for number in range(1, 20_001, 1000):
                    writer.numbers(number, 1000, size=400, address=("jobs", "x"))
                server.process.send_signal(signal.SIGCONT)
                gap = client.told("gap")
                assert "let go" in gap["reason"]
                client.read(lambda _: client.events[-1:] == [20_000])
                cut = next(at for at, number in enumerate(client.events) if number != at)
                assert client.events[cut:] == list(range(client.events[cut], 20_001))
                assert gap["from"] == client.positions[cut - 1]


def test_it_may_be_there_before_its_worker(tmp_path, vhost):
    with running_server(tmp_path, vhost) as server:
        assert "towerbus-worker" in server.await_broken("log")
        assert server.ready()[1]["listen"]
        assert server.port("--listen") is None
        assert server.emit(1) == 503
        assert server.get("/healthz")[0] == 200
        with running_worker(tmp_path, vhost):
            server.await_ready()
            assert server.port("--listen")


def test_it_may_be_there_before_its_broker(tmp_path, own_broker):
    url = own_broker.vhost()
    own_broker.settle()
    own_broker.stop()
    with running_server(tmp_path, url) as server, running_worker(tmp_path, url):
        server.await_broken("broker")
        wait_for(lambda: "amqp_lost: log" in server.log, 20, "a word in the log")
        assert server.port("--listen") is None
        own_broker.start()
        server.await_ready(60)
        with V1(server) as client:
            server.emit_surely(1)
            assert client.until(1) == [1]


def test_a_clock_that_is_set_back_is_nothing_to_it(tmp_path, vhost):
    shim = library(tmp_path)
    with running_worker(tmp_path, vhost), running_server(tmp_path, vhost, LD_PRELOAD=shim) as server:
        server.await_ready()
        with V1(server) as client:
            client.told("groups_current")
            (tmp_path / "set-back").touch()
            time.sleep(4)
            status, said = server.get("/readyz")
            assert (status, said["broken"]) == (200, {})
            assert said["canary"]["age"] < 2.5
            server.emit_surely(1)
            assert client.until(1) == [1]
            assert client.stale == []


def test_a_stop_is_no_fault_of_the_bus(bus):
    with V1(bus) as client:
        client.told("groups_current")
        bus.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        bus.process.send_signal(signal.SIGCONT)
        bus.await_ready()
        bus.emit_surely(1)
        assert client.until(1) == [1]
        assert client.stale == []


def run(tmp_path, command, *words, **variables):
    """Run a command that is to fail; what it says."""
    done = subprocess.run(
        [BIN / "twistd", "-n", "--pidfile=", command, *words], cwd=tmp_path, env=environment(**variables), capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_refusal_at_the_start_is_a_message_and_exit_code_1(tmp_path, vhost):
    key, _ = token(tmp_path)
    host = vhost.partition("@")[2].partition("/")[0]
    for url, words in (
        (f"amqp://tb:wrong@{host}/tb", ["login", "'tb'", "password"]),
        (f"amqp://tb:tb@{host}/nowhere", ["nowhere", "virtual host"]),
    ):
        said = run(tmp_path, "towerbus-server", *options(key), TOWERBUS_BUS=url)
        for word in ["towerbus-server: ", *words]:
            assert word in said
        assert "wrong@" not in said


def test_a_missing_permission_is_a_message_and_exit_code_1(tmp_path, broker, vhost):
    key, _ = token(tmp_path)
    with LogWriter(vhost) as writer:
        writer.declare().fence()
    name = vhost.rpartition("/")[2]
    broker.api("PUT", "/api/users/poor", {"password": "poor", "tags": ""})
    broker.api("PUT", f"/api/permissions/{name}/poor", {"configure": ".*", "write": ".*", "read": "^$"})
    said = run(tmp_path, "towerbus-server", *options(key), TOWERBUS_BUS=vhost.replace("tb:tb@", "poor:poor@"))
    for word in ("towerbus-server: ", "towerbus.log", "permission", "'poor'"):
        assert word in said


def test_a_port_that_is_taken_is_a_message_and_exit_code_1(tmp_path, vhost):
    key, _ = token(tmp_path)
    with LogWriter(vhost) as writer:
        writer.declare().fence()
    for option in ("--listen", "--http"):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            said = run(tmp_path, "towerbus-server", *options(key), option, port, TOWERBUS_BUS=vhost)
            assert "in use" in said
            assert option in said


WRONG = {
    ("towerbus-server", "memory:"): ["--bus", "memory:", "twistd towerbus"],
    ("towerbus-server", "sqlite:x"): ["--bus", "sqlite:", "twistd towerbus"],
    ("towerbus-server", "amqp://h/a/b"): ["--bus", "%2F"],
    ("towerbus", "amqp://u:secret@h/"): ["--bus", "towerbus-server", "towerbus-worker"],
    ("towerbus", "sqlite:"): ["--bus", "sqlite:PATH"],
}


@pytest.mark.parametrize(("command", "url"), WRONG, ids="-".join)
def test_a_bus_of_the_wrong_kind_is_refused_with_the_reason(tmp_path, command, url):
    key, _ = token(tmp_path)
    said = run(tmp_path, command, *options(key), "--bus", url)
    for word in WRONG[command, url]:
        assert word in said
    assert "secret" not in said


def test_without_auth_it_does_not_start(tmp_path):
    said = run(tmp_path, "towerbus-server", "--bus", "amqp://127.0.0.1/")
    assert "--auth" in said
    assert "jwt:PATH" in said
