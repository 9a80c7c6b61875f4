"""The source `awx-relay`: a relay that behaves as AWX's, a real bridge, a real PostgreSQL, a real server and its clients."""

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import awx_relay
from support.feeding import feeding, payloads, refused
from support.intakes import declare_now, taken, unrepeated
from support.ports import Ports
from support.running import environment, wait_for
from support.server import running_server
from support.worker import running_worker
from websockets.sync.client import connect

SECRET = "a secret of AWX's"
STARTING = {"jobs-status_changed", "jobs-summary", "schedules-changed", "inventories-status_changed"}


class Relay:
    """The program `support/awx_relay.py`.

    Attributes:
        told: All that it has told, in order.
    """

    def __init__(self, process):
        self._process = process
        self.told = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def emit(self, group, payload):
        self._process.stdin.write(json.dumps({"emit": group, "payload": payload}) + "\n")
        self._process.stdin.flush()

    def lose_redis(self, group):
        """Lose the connection to Redis on which a group's events are awaited."""
        self._process.stdin.write(json.dumps({"lose_redis": group}) + "\n")
        self._process.stdin.flush()

    def await_told(self, key, times=1):
        """Wait until it has told something; returns what it said of it, the newest."""
        wait_for(lambda: len(self.all(key)) >= times, 30, f"{key} x {times} of {self.told}")
        return self.all(key)[-1]

    def all(self, key):
        return [said[key] for said in list(self.told) if key in said]

    def await_following(self, group):
        """Wait until a group is asked for; what is emitted to it before is lost, as in AWX."""
        wait_for(lambda: any(group in groups for groups in self.all("subscribe")), 30, f"{group} in {self.told}")

    def end(self):
        self._process.kill()
        self._process.wait()
        self._reading.join()
        self._process.stdin.close()
        self._process.stdout.close()

    def _read(self):
        for line in self._process.stdout:
            self.told.append(json.loads(line))


@contextmanager
def relaying(port, secret=SECRET, **options):
    """A task node of AWX's, with a relay on it."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    process = subprocess.Popen(
        [sys.executable, str(Path(awx_relay.__file__)), "--port", str(port), "--secret", secret, *words],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    relay = Relay(process)
    try:
        yield relay
    finally:
        relay.end()


@pytest.fixture
def port():
    """A port that stays the bridge's, also while the bridge is down."""
    ports = Ports()
    yield ports.numbers[0]
    ports.release()


def table(port, **more):
    given = {"kind": "awx-relay", "secret": "env:AWX_SECRET", "listen": f"tcp:{port}:interface=127.0.0.1"} | more
    lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
    return "\n".join(['[[bridge]]\nname = "awx"', "[bridge.source]", *lines])


def announced(database, **more):
    given = {"announce_url": database, "announce_hostname": "towerbus-1", "announce_ip": "127.0.0.1"}
    return given | {"announce_every": 1.0} | more


def status(number, word, **more):
    return {"group_name": "jobs", "unified_job_id": number, "status": word, "type": "job"} | more


def all_payloads(url):
    """What the events hold that are in the intake, as a worker takes them: those that are repeated, with their ids, once."""
    return payloads(unrepeated(taken(url)))


def test_a_relay_that_behaves_as_awx_does_feeds_a_client(vhost, database, port, tmp_path):
    """It hears of the node, dials it, is told what to send; a job's own events are asked for when it begins."""
    with (
        running_worker(tmp_path, vhost) as worker,
        running_server(tmp_path, vhost) as server,
        relaying(port, database=database) as relay,
    ):
        worker.await_log("worker_active")
        server.await_ready()
        relay.await_told("listens")
        with feeding(tmp_path, vhost, table(port, **announced(database)), AWX_SECRET=SECRET) as bridge, connect(server.ws_url) as client:  # fmt: skip
            client.send(json.dumps({"groups": {"jobs": ["status_changed", "summary"], "job_events": [42]}}))
            client.recv(20), client.recv(20)
            relay.await_told("connected")
            assert set(relay.await_told("subscribe")) == STARTING
            bridge.await_well()
            relay.emit("jobs-status_changed", status(42, "running"))
            assert json.loads(client.recv(20)) == status(42, "running")
            relay.await_following("job_events-42")
            for counter in range(1, 201):
                relay.emit("job_events-42", {"counter": counter, "stdout": "é\r\n", "group_name": "job_events"})
            assert [json.loads(client.recv(20))["counter"] for _ in range(200)] == list(range(1, 201))
            relay.emit("jobs-summary", {"group_name": "jobs", "unified_job_id": 42, "final_counter": 200})
            assert json.loads(client.recv(20))["final_counter"] == 200
            assert bridge.measure("awx_relays") == 1
            assert bridge.measure("awx_followed") == 1
            assert dead(bridge) == 0, "AWX's own metrics, which come unasked, are passed over"
            bridge.stop()
            assert relay.await_told("lost") == "127.0.0.1"
            said = [beat["action"] for beat in relay.all("heartbeat")]
            assert said == ["online"] * (len(said) - 1) + ["offline"], "it takes its leave, once"
            assert relay.all("heartbeat")[0] == {"hostname": "towerbus-1", "ip": "127.0.0.1", "action": "online"}


def test_it_survives_restarts_of_the_relay_of_the_database_and_of_itself(vhost, database, postgres, port, tmp_path):
    declare_now(vhost)
    with feeding(tmp_path, vhost, table(port, **announced(database)), AWX_SECRET=SECRET) as bridge:
        with relaying(port, database=database) as relay:
            relay.await_told("connected")
            bridge.await_well()
            relay.await_told("subscribe")
            relay.emit("jobs-status_changed", status(7, "running"))
            relay.await_following("job_events-7")
        bridge.await_broken("no relay of AWX's is connected")
        with relaying(port, database=database) as relay:
            relay.await_following("job_events-7")
            assert set(relay.await_told("subscribe")) == STARTING | {"job_events-7"}, "with the job that runs"
            bridge.await_well()
            postgres.kill()
            bridge.await_broken("it is not announced to AWX")
            relay.await_told("deaf")
            relay.emit("jobs-status_changed", status(7, "successful"))
            wait_for(lambda: bridge.measure("messages_total") == 2, 30, "what comes meanwhile")
            postgres.start()
            relay.await_told("listens", times=2)
            bridge.await_well()
            assert relay.all("lost") == [], "relays that are connected stay"
            bridge.restart()
            relay.await_told("connected", times=2)
            relay.await_told("subscribe", times=2)
            relay.emit("jobs-status_changed", status(8, "running"))
            relay.await_following("job_events-8")
            bridge.await_well()
            bridge.stop()
            assert "Traceback" not in bridge.log
            assert relay.all("warned") == []
    assert [payload["unified_job_id"] for payload in all_payloads(vhost)] == [7, 7, 8]


def test_a_group_that_a_relay_forgets_with_its_redis_is_asked_for_again(vhost, port, tmp_path):
    """AWX's relay lets go of a group when it loses a connection to Redis, and keeps the connection to the node."""
    declare_now(vhost)
    with (
        feeding(tmp_path, vhost, table(port, renew_every=1.0), AWX_SECRET=SECRET) as bridge,
        relaying(port, node="127.0.0.1") as relay,
    ):
        relay.await_following("jobs-status_changed")
        relay.emit("jobs-status_changed", status(7, "running"))
        relay.await_following("job_events-7")
        for group in ("jobs-status_changed", "job_events-7"):
            relay.lose_redis(group)
        relay.await_told("lost_redis", times=2)
        asked = len(relay.all("subscribe"))
        relay.await_told("subscribe", times=asked + 1)
        relay.emit("jobs-status_changed", status(7, "successful"))
        relay.emit("job_events-7", {"counter": 1})
        wait_for(lambda: bridge.measure("messages_total") == 3, 30, "both")
        assert relay.all("lost") == []
        assert relay.all("warned") == []
        bridge.stop()


@pytest.mark.parametrize(
    ("event", "options"),
    [
        ("relay_secret_wrong", {"secret": "another"}),
        ("relay_secret_empty", {"secret": ""}),
        ("relay_secret_old", {"clock": -400}),
        ("relay_secret_early", {"clock": 400}),
        ("relay_secret_missing", {"header": ""}),
        ("relay_secret_malformed", {"header": "nonsense"}),
    ],
)
def test_who_does_not_know_the_secret_now_is_refused_with_a_word_of_its_own(vhost, port, tmp_path, event, options):
    declare_now(vhost)
    with (
        feeding(tmp_path, vhost, table(port), AWX_SECRET=SECRET) as bridge,
        relaying(port, **{"node": "127.0.0.1"} | options) as relay,
    ):
        assert relay.await_told("refused") == 403
        bridge.await_log(event)
        others = {"wrong", "empty", "old", "early", "missing", "malformed"} - {event.rpartition("_")[2]}
        assert not [other for other in others if f"relay_secret_{other}" in bridge.log]
        assert SECRET not in bridge.log
        assert relay.all("connected") == []
        assert bridge.measure("awx_refused") >= 1


def test_another_path_is_refused(vhost, port, tmp_path):
    declare_now(vhost)
    with (
        feeding(tmp_path, vhost, table(port), AWX_SECRET=SECRET),
        relaying(port, node="127.0.0.1", path="/websocket/") as relay,
    ):
        assert relay.await_told("refused") == 404


def test_what_comes_while_the_bus_is_away_arrives_afterwards_in_order(own_broker, port, tmp_path):
    url = own_broker.vhost()
    declare_now(url)
    own_broker.settle()
    with (
        feeding(tmp_path, url, table(port, groups=["jobs-x"], follow=False), AWX_SECRET=SECRET) as bridge,
        relaying(port, node="127.0.0.1") as relay,
    ):
        relay.await_following("jobs-x")
        relay.emit("jobs-x", {"n": 0})
        own_broker.kill()
        for number in range(1, 500):
            relay.emit("jobs-x", {"n": number})
        wait_for(lambda: bridge.measure("awx_waiting_bytes") > 499 * 256, 30, "all of them")
        own_broker.recover()
        wait_for(lambda: bridge.measure("awx_waiting_bytes") == 0, 60, "none")
        bridge.stop()
    assert [payload["n"] for payload in all_payloads(url) if payload["n"]] == list(range(1, 500))


def test_what_was_received_before_an_orderly_end_is_forwarded(own_broker, port, tmp_path):
    """Nobody would send it again."""
    url = own_broker.vhost()
    declare_now(url)
    with (
        feeding(tmp_path, url, table(port, groups=["jobs-x"], follow=False), AWX_SECRET=SECRET) as bridge,
        relaying(port, node="127.0.0.1") as relay,
    ):
        relay.await_following("jobs-x")
        own_broker.freeze()
        for number in range(1000):
            relay.emit("jobs-x", {"n": number})
        wait_for(lambda: bridge.measure("awx_waiting_bytes") > 1000 * 256, 30, "all of them")
        own_broker.thaw()
        bridge.stop()
        assert "relay_kept" not in bridge.log
    assert [payload["n"] for payload in all_payloads(url)] == list(range(1000))


def test_what_waits_is_bounded_and_it_is_said_what_was_dropped(own_broker, port, tmp_path):
    url = own_broker.vhost()
    declare_now(url)
    own_broker.settle()
    options = {"groups": ["jobs-x"], "follow": False, "max_waiting": 3000}
    with (
        feeding(tmp_path, url, table(port, **options), AWX_SECRET=SECRET) as bridge,
        relaying(port, node="127.0.0.1") as relay,
    ):
        relay.await_following("jobs-x")
        bridge.await_well()
        own_broker.kill()
        for number in range(100):
            relay.emit("jobs-x", {"n": number})
        bridge.await_broken("AWX's messages are dropped")
        wait_for(lambda: bridge.measure("awx_dropped") == 89, 30, "the count")
        own_broker.recover()
        bridge.await_well()
        bridge.stop()
    assert [payload["n"] for payload in all_payloads(url)] == list(range(11))


def test_what_is_no_message_of_a_relays_goes_to_the_dead_queue(vhost, port, tmp_path):
    declare_now(vhost)
    header = awx_relay.secret_header(SECRET, time.time())
    with feeding(tmp_path, vhost, table(port), AWX_SECRET=SECRET) as bridge:
        bridge.await_log("relays_awaited")
        with connect(f"ws://127.0.0.1:{port}/websocket/relay/", additional_headers={"secret": header}) as relay:
            assert json.loads(relay.recv(20))["origin_channel"] == "towerbus.awx"
            relay.send("nonsense")
            relay.send(b"\xff")
            relay.send('{"group": "jobs-summary", "message": {"text": "[]"}}')
            relay.send('{"group": "jobs-summary", "message": {"text": "{\\"n\\": 1}"}}')
            wait_for(
                lambda: 'dead_total{bridge="awx"' in bridge.get("/metrics")[1] and dead(bridge) == 3, 30, "the dead"
            )
        bridge.stop()
    assert all_payloads(vhost) == [{"n": 1}]


def dead(bridge):
    """How many messages went to the dead queue."""
    lines = [line for line in bridge.get("/metrics")[1].splitlines() if "dead" in line and not line.startswith("#")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'bridge="awx"' in line)


def test_an_empty_secret_is_refused_before_anything_starts(port, tmp_path):
    assert "would let in anybody" in refused(tmp_path, table(port), AWX_SECRET="")
    assert "secret" in refused(tmp_path, '[[bridge]]\nname = "awx"\n[bridge.source]\nkind = "awx-relay"')


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"listen": "nonsense:1"}, "no endpoint"),
        ({"path": "relay"}, "a path that begins with /"),
        ({"groups": ["jobs"]}, "such as jobs-status_changed"),
        ({"announce_url": "postgresql://h/d"}, "both, or neither"),
        ({"announce_url": "postgresql://a:b@h/d?x", "announce_hostname": "h"}, "no connection string"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(port, tmp_path, more, said):
    assert said in refused(tmp_path, table(port, **more), AWX_SECRET=SECRET)


def test_a_port_that_is_taken_is_named_and_does_not_end_the_process(vhost, port, tmp_path):
    declare_now(vhost)
    (tmp_path / "other").mkdir()
    with feeding(tmp_path, vhost, table(port), AWX_SECRET=SECRET) as first:
        first.await_log("relays_awaited")
        with feeding(tmp_path / "other", vhost, table(port), AWX_SECRET=SECRET) as second:
            second.await_broken("can't listen on")
            first.kill()
            second.await_log("relays_awaited")
