"""The shipped supervisor file for production, under a real supervisord."""

import contextlib
import getpass
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from support.development import BIN, TOP
from support.ports import Ports
from support.running import environment, wait_for
from support.server import token
from websockets.sync.client import connect

pytestmark = pytest.mark.long

MAIN = """
[supervisord]
nodaemon = true
user = {user}
logfile = {at}/supervisord.log
pidfile = {at}/supervisord.pid
[unix_http_server]
file = {at}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[include]
files = {at}/towerbus.conf
"""


class Supervisord:
    """A running supervisord with the shipped file."""

    def __init__(self, directory):
        self._directory = directory

    def status(self):
        """State and process id by program."""
        command = [str(BIN / "supervisorctl"), "-s", f"unix://{self._directory}/socket", "status"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        return {
            name: (state, pid)
            for name, state, pid in re.findall(r"^towerbus:(\S+)\s+(\S+)(?:\s+pid (\d+))?", text, re.MULTILINE)
        }

    def log(self, name):
        path = self._directory / f"{name}.log"
        return path.read_text() if path.exists() else ""


@contextlib.contextmanager
def supervised(directory, bridges="", **options):
    """Start it with options for towerbus; only paths and the user are put where a test may use them.

    Where there are bridges, what the file says to do for them is done.
    """
    (directory / "towerbus.toml").write_text(
        "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    )
    text = (TOP / "etc" / "supervisor" / "towerbus.conf").read_text()
    for old, new in {
        "/opt/towerbus/bin/": f"{BIN}/", "/etc/towerbus/": f"{directory}/", "/var/log/towerbus/": f"{directory}/",
        "user = towerbus": f"user = {getpass.getuser()}",
    }.items():  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    if bridges:
        (directory / "bridges.toml").write_text(bridges)
        text = re.sub(r"^;(?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)
        text = text.replace("programs = ", "programs = towerbus-bridge,").replace("/var/lib/towerbus/", f"{directory}/")
    (directory / "towerbus.conf").write_text(text)
    (directory / "main.conf").write_text(MAIN.format(at=directory, user=getpass.getuser()))
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(directory / "main.conf")]
    with (directory / "output").open("ab") as sink:
        process = subprocess.Popen(
            command, env=environment(), stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        yield Supervisord(directory)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(120)


def test_workers_and_server_run_and_come_back_and_stop_in_order(tmp_path, vhost):
    ports = Ports()
    listen, http = (f"tcp:{port}:interface=127.0.0.1" for port in ports.numbers[:2])
    key, good = token(tmp_path)
    url = f"ws://127.0.0.1:{ports.numbers[0]}/websocket/?token={good}"
    with supervised(tmp_path, bus=vhost, auth=[f"jwt:{key}"], listen=listen, http=http) as supervisord:

        def all_run(count=1):
            states = supervisord.status()
            up = supervisord.log("towerbus-server").count("listening: --listen") == count
            return up and [state for state, _ in states.values()] == ["RUNNING"] * 3

        wait_for(all_run, 60, "all to run")
        before = supervisord.status()
        assert sorted(before) == ["towerbus-server", "towerbus-worker-0", "towerbus-worker-1"]
        workers = [supervisord.log(name) for name in sorted(before)[1:]]
        assert sum("worker_active" in text for text in workers) == 1
        with connect(url, open_timeout=20) as client:
            assert json.loads(client.recv(20)) == {"accept": True, "user": 7}
        os.kill(int(before["towerbus-server"][1]), signal.SIGKILL)
        wait_for(lambda: all_run(2), 60, "the server to come back")
        assert supervisord.status()["towerbus-server"] != before["towerbus-server"]
    for name in before:
        assert "Server Shut Down." in supervisord.log(name)
    ports.release()


def test_the_section_for_bridges_runs_once_it_is_taken_in(tmp_path, vhost):
    ports = Ports()
    bridges = f"""
        bus = "{vhost}"
        bridge_http = "tcp:{ports.numbers[2]}:interface=127.0.0.1"
        [[bridge]]
        name = "emit"
        [bridge.source]
        kind = "http"
        listen = "unix:{tmp_path}/emit.sock:mode=660"
    """
    key, _ = token(tmp_path)
    listen, http = (f"tcp:{port}:interface=127.0.0.1" for port in ports.numbers[:2])
    options = {"bus": vhost, "auth": [f"jwt:{key}"], "listen": listen, "http": http}
    with supervised(tmp_path, bridges, **options) as supervisord:
        wait_for(lambda: "bridge_established: emit" in supervisord.log("towerbus-bridge"), 60, "the bridge")
        wait_for(lambda: supervisord.status()["towerbus-bridge"][0] == "RUNNING", 60, "it to stay")
        command = ["curl", "--silent", "--show-error", "--fail", "--unix-socket", str(tmp_path / "emit.sock")]
        event = '{"group": "jobs", "type": "x", "payload": {"n": 1}}'
        said = subprocess.run(
            [*command, "--retry", "20", "--data", event, "http://bridge/emit"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert said.stdout == '{"accepted":1}\n', said.stderr
    assert "Server Shut Down." in supervisord.log("towerbus-bridge")
    ports.release()


def test_a_mistake_in_the_file_is_in_the_log_and_not_tried_for_ever(tmp_path):
    with supervised(tmp_path, bus="amqp://127.0.0.1:1/", outbox="many") as supervisord:
        wait_for(lambda: supervisord.log("towerbus-server").count("outbox: got 'many'") >= 2, 60, "two tries")
        assert {state for state, _ in supervisord.status().values()} <= {"STARTING", "BACKOFF", "FATAL"}
