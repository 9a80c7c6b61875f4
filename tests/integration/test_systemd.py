"""The units, under a real systemd: ready, status, socket, watchdog, reload and stop."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import threading
import time
from contextlib import ExitStack

import pytest
from support.ports import Ports
from support.running import wait_for
from support.server import BIN, V1, token
from support.systemd import UNITS, VERSION, Systemd, reason_to_skip
from websockets.exceptions import ConnectionClosedError

from towerbus import Emitter

pytestmark = pytest.mark.long

REASON = reason_to_skip()
needs_namespace = pytest.mark.skipif(bool(REASON), reason=REASON)
needs_analyze = pytest.mark.skipif(
    not (BIN.exists() and subprocess.run(["which", "systemd-analyze"], capture_output=True).returncode == 0),
    reason="systemd is not installed: apt-get install systemd",
)
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
BRIDGE = "towerbus-bridge@local"
POST = """
import http.client, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/towerbus/emit.sock")
connection.request("POST", "/emit", sys.argv[1])
print(connection.getresponse().status)
"""
SERVER, OTHER, WORKER = "towerbus-server@1", "towerbus-server@2", "towerbus-worker@1"


@pytest.fixture
def units(tmp_path):
    """The units with a program that is there."""
    for unit in UNITS.glob("*.[st][eoa]*"):
        text = unit.read_text().replace("/usr/local/lib/towerbus/bin/twistd", str(BIN / "twistd"))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@needs_analyze
def test_nothing_is_wrong_with_the_units(units):
    for unit in sorted(units.glob("towerbus*.[st][eoa]*")):
        done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
        assert done.stdout + done.stderr == "", unit.name
        assert done.returncode == 0


@needs_analyze
@pytest.mark.parametrize("unit", SERVICES)
def test_each_is_exposed_little(units, unit):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(units / unit)], capture_output=True, text=True
    )
    score = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert score, done.stdout + done.stderr
    assert float(score[1]) < 2.0


class Machine(Systemd):
    """One with clients."""

    def __init__(self, directory, bus, port, keys):
        key, self.token = token(keys)
        config = (
            f'auth = ["jwt:/srv/place/etc/{key.name}"]\ndrain = 1.0\n[[access]]\ngroups = ["jobs"]\nwho = "everyone"\n'
        )
        super().__init__(directory, bus, port, config)
        (directory / "etc" / key.name).write_bytes(key.read_bytes())

    @property
    def ws_url(self):
        return f"ws://127.0.0.1:{self.port}/websocket/?token={self.token}"

    def http(self, path, number=1):
        connection = http.client.HTTPConnection(f"127.0.0.{number}", self.port + 1, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def clients(self, number):
        return int(
            float(re.search(r'towerbus_clients{dialect="towerbus.v1"} (\S+)', self.http("/metrics", number)[1])[1])
        )

    def carry(self):
        """Configure a bridge with a Unix socket for programs on the machine."""
        (self.directory / "etc" / "bridges" / "local.toml").write_text(
            f'bridge_http = "tcp:{self.port + 2}:interface=127.0.0.1"\n[[bridge]]\nname = "local"\n'
            '[bridge.source]\nkind = "http"\nlisten = "unix:/run/towerbus/emit.sock:mode=660"\n'
        )

    def post(self, number, *groups):
        """Post an event as a user with these groups alone; returns what came of it."""
        body = json.dumps({"group": "jobs", "type": "x", "payload": {"n": number}, "id": f"n{number}"})
        words = ["--groups", ",".join(groups)] if groups else ["--clear-groups"]
        python = f"/srv/python/bin/python{VERSION}"
        return self.run(
            *("env", "LD_LIBRARY_PATH=/srv/python/lib", "setpriv", "--reuid=nobody", "--regid=nogroup", *words),
            *(
                python,
                "-c",
                f"try:{POST.replace(chr(10), chr(10) + ' ')}\nexcept OSError as error: print(error.strerror)",
                body,
            ),
        )

    def emit(self, number):
        with Emitter(f"http://127.0.0.1:{self.port + 1}", self.token) as emitter:
            emitter.emit("jobs", "x", {"n": number})


@pytest.fixture
def machine(tmp_path):
    """Makes a systemd that serves on a broker."""
    ports, machines = Ports(), ExitStack()
    place = tmp_path / "place"
    place.mkdir()
    yield lambda bus: machines.enter_context(Machine(place, bus, ports.numbers[0], tmp_path))
    machines.close()
    ports.release()


def log_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@needs_namespace
def test_two_servers_behind_one_socket(machine, vhost):
    tower = machine(vhost)
    tower.systemctl("start", "towerbus-server.socket", WORKER, SERVER, OTHER)
    assert tower.show(WORKER, "ActiveState") == tower.show(SERVER, "ActiveState") == "active"
    assert re.match("(standby|active), term", tower.show(WORKER, "StatusText"))
    with ExitStack() as stack:
        clients = [stack.enter_context(V1(tower)) for _ in range(60)]
        for client in clients:
            client.told("groups_current")
        spread = [tower.clients(1), tower.clients(2)]
        assert sum(spread) == 60
        assert min(spread) >= 15, spread
        tower.await_shown(SERVER, "StatusText", lambda text: text == f"serving {spread[0]} clients")
        tower.emit(1)
        for client in clients:
            assert client.until(1) == [1]
        # The credential is nowhere that others could read it.
        assert "tb:tb@" not in tower.run("ps", "axww")
    tower.systemctl("reload", SERVER)
    wait_for(lambda: "reload_begun" in tower.log(SERVER), 20, "the reload")
    tower.await_shown(SERVER, "ActiveState", lambda state: state == "active")
    tower.systemctl("stop", SERVER, OTHER, WORKER)
    for unit in (SERVER, OTHER, WORKER):
        assert (tower.show(unit, "Result"), tower.show(unit, "NRestarts")) == ("success", "0"), tower.logs()
    events = log_lines(tower.log(SERVER))
    assert {"listening", "drained", "reloaded"} <= {line["event"] for line in events} | {"drained"}
    assert all({"time", "level", "event", "text", "from"} <= line.keys() for line in events)


@needs_namespace
def test_the_shared_socket_never_blocks_while_another_server_starts(machine, vhost):
    """A server that finds it so stands still in accept() until the next client comes."""
    tower = machine(vhost)
    tower.systemctl("start", "towerbus-server.socket", WORKER, SERVER)
    pid = tower.show(SERVER, "MainPID")
    tower.await_shown(SERVER, "StatusText", lambda text: text.startswith("serving"))
    entry = next(
        line for line in tower.run("cat", f"/proc/{pid}/net/tcp").splitlines() if f":{tower.port:04X} " in line
    )
    link = f"socket:[{entry.split()[9]}]"
    number = next(line.split()[-3] for line in tower.run("ls", "-l", f"/proc/{pid}/fd").splitlines() if link in line)
    starting = threading.Thread(target=tower.systemctl, args=("start", OTHER))
    starting.start()
    looks = 0
    try:
        while starting.is_alive():
            flags = re.search(r"flags:\s+(\d+)", tower.run("cat", f"/proc/{pid}/fdinfo/{number}"))[1]
            assert int(flags, 8) & os.O_NONBLOCK, f"the socket blocks: flags {flags}"
            looks += 1
    finally:
        starting.join()
    assert looks > 3


@needs_namespace
def test_connections_wait_while_the_only_server_restarts(machine, vhost):
    tower = machine(vhost)
    tower.systemctl("start", "towerbus-server.socket", WORKER, SERVER)
    restarting = threading.Thread(target=tower.systemctl, args=("restart", SERVER))
    restarting.start()
    tries = 0
    while restarting.is_alive():
        # Who came in just before the end is sent on, in words; a refused connection would raise another error.
        with contextlib.suppress(ConnectionClosedError), V1(tower) as client:
            client.told("groups_current")
            assert any(key in message for key in ("groups_current", "reconnect") for message in client.others)
        tries += 1
    restarting.join()
    assert tries > 1
    with V1(tower) as client:
        client.told("groups_current")
    # The first connection starts a server that was stopped.
    tower.systemctl("stop", SERVER)
    with V1(tower) as client:
        client.told("groups_current")
    tower.await_shown(SERVER, "ActiveState", lambda state: state == "active")


@needs_namespace
@pytest.mark.parametrize("unit", [SERVER, WORKER])
def test_the_watchdog_restarts_a_process_that_stands_still(machine, vhost, unit):
    tower = machine(vhost)
    tower.systemctl("start", "towerbus-server.socket", WORKER, SERVER)
    before = tower.show(unit, "MainPID")
    tower.signal(unit, "STOP")
    tower.await_shown(unit, "NRestarts", lambda count: count == "1")
    tower.await_shown(unit, "ActiveState", lambda state: state == "active")
    assert tower.show(unit, "MainPID") != before
    tower.await_shown(SERVER, "StatusText", lambda text: text.startswith("serving"))
    with V1(tower) as client:
        client.told("groups_current")
        tower.emit(1)
        assert client.until(1) == [1]


@needs_namespace
def test_a_frozen_broker_is_told_of_and_nobody_is_restarted(machine, own_broker):
    tower = machine(own_broker.vhost())
    tower.systemctl("start", "towerbus-server.socket", WORKER, SERVER)
    with V1(tower) as client:
        client.told("groups_current")
        own_broker.freeze()
        begun = time.monotonic()
        tower.await_shown(SERVER, "StatusText", lambda text: text.startswith("not ready"))
        tower.await_shown(WORKER, "StatusText", lambda text: text.startswith("not ready: broker"))
        assert tower.http("/readyz")[0] == 503
        assert tower.http("/healthz")[0] == 200
        # Longer than the watchdog waits for a process that stands still.
        wait_for(lambda: time.monotonic() - begun > 12, 20, "three times the watchdog's seconds")
        own_broker.thaw()
        tower.await_shown(SERVER, "StatusText", lambda text: text.startswith("serving 1"))
        tower.await_shown(WORKER, "StatusText", lambda text: "term" in text)
        wait_for(lambda: tower.http("/readyz")[0] == 200, 30, "readiness")
        tower.emit(1)
        assert client.until(1) == [1]
        assert client.stale[0] is not False
        assert client.stale[-1] is False
    for unit in (SERVER, WORKER):
        assert tower.show(unit, "NRestarts") == "0"
    # And again as strict as before: the watchdog is fed in time.
    tower.signal(SERVER, "STOP")
    tower.await_shown(SERVER, "NRestarts", lambda count: count == "1")


@needs_namespace
def test_a_bridge_takes_events_of_a_group_of_local_programs(machine, vhost):
    tower = machine(vhost)
    tower.carry()
    tower.systemctl("start", "towerbus-server.socket", WORKER, SERVER, BRIDGE)
    assert tower.show(BRIDGE, "ActiveState") == "active"
    tower.await_shown(BRIDGE, "StatusText", lambda text: text == "carrying 1 bridge")
    assert tower.run("stat", "-c", "%U %G %a", "/run/towerbus/emit.sock") == "daemon games 660"
    assert tower.run("stat", "-c", "%U %a", "/var/lib/towerbus/bridge-local") == "daemon 700"
    with V1(tower) as client:
        client.told("groups_current")
        assert tower.post(1, "games") == "202"
        assert client.until(1) == [1]
        # Neither anybody, nor who may read towerbus's files.
        assert tower.post(2) == tower.post(2, "daemon") == "Permission denied"
        # One that stands still is restarted, and its socket is there again.
        before = tower.show(BRIDGE, "MainPID")
        tower.signal(BRIDGE, "STOP")
        tower.await_shown(BRIDGE, "NRestarts", lambda count: count == "1")
        tower.await_shown(BRIDGE, "ActiveState", lambda state: state == "active")
        tower.await_shown(BRIDGE, "StatusText", lambda text: text == "carrying 1 bridge")
        assert tower.show(BRIDGE, "MainPID") != before
        assert tower.post(3, "games") == "202"
        assert client.until(2) == [1, 3]
    assert "tb:tb@" not in tower.run("ps", "axww")
    tower.systemctl("stop", BRIDGE)
    assert (tower.show(BRIDGE, "Result"), tower.show(BRIDGE, "NRestarts")) == ("success", "0"), tower.logs()
    assert tower.run("ls", "/run/towerbus") == ""
    assert all({"time", "level", "event", "text", "from"} <= line.keys() for line in log_lines(tower.log(BRIDGE)))


@needs_namespace
def test_a_bridge_takes_events_while_the_bus_is_away_and_says_so(machine, own_broker):
    tower = machine(own_broker.vhost())
    tower.carry()
    tower.systemctl("start", "towerbus-server.socket", WORKER, SERVER, BRIDGE)
    with V1(tower) as client:
        client.told("groups_current")
        tower.await_shown(BRIDGE, "StatusText", lambda text: text == "carrying 1 bridge")
        own_broker.freeze()
        tower.await_shown(BRIDGE, "StatusText", lambda text: text.startswith("carrying 1 bridge; bus: "))
        assert tower.post(1, "games") == "202"
        assert tower.post(2, "games") == "202"
        own_broker.thaw()
        assert client.until(2, 60) == [1, 2]
        tower.await_shown(BRIDGE, "StatusText", lambda text: text == "carrying 1 bridge")
    assert tower.show(BRIDGE, "NRestarts") == "0"
