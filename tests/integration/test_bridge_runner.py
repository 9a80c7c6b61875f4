"""A real run of ansible-runner, through a queue, the source `amqp`, worker and server, to a WebSocket client."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.bridge import await_log, running_bridge
from support.running import environment, wait_for
from support.server import running_server
from support.worker import running_worker
from websockets.sync.client import connect

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples" / "bridges"
SECONDS = 180


def playbook(directory, gates):
    """A playbook with many events, that waits at gates which are files."""
    tasks = []
    for number, gate in enumerate([*gates, None]):
        tasks.append({"name": f"part {number}", "debug": {"msg": "{{ item }}"}, "loop": list(range(25))})
        if gate is not None:
            tasks.append({"wait_for": {"path": str(gate), "timeout": SECONDS, "sleep": 1}})
    file = directory / "gates.yml"
    file.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    return file


class Client:
    """A client of one job, that stays connected."""

    def __init__(self, socket):
        self._socket = socket
        self.events, self.others = [], []
        socket.send(json.dumps({"groups": {"job_events": [42], "jobs": ["summary"]}}))

    def read(self, condition):
        until = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < until, f"{len(self.events)} events, {self.others}"
            try:
                message = json.loads(self._socket.recv(timeout=1))
            except TimeoutError:
                continue
            (self.events if message.get("group") == "job_events" else self.others).append(message)

    @property
    def summary(self):
        return next((each["data"] for each in self.others if each.get("type") == "summary"), None)


def test_all_counters_in_order_while_bridge_worker_and_broker_are_killed(own_broker, tmp_path):
    bus, callback = own_broker.vhost(), own_broker.vhost()
    gates = [tmp_path / f"gate{number}" for number in range(3)]
    command = [sys.executable, str(EXAMPLES / "callback_queue.py"), "--url", callback]
    tables = (EXAMPLES / "callback.toml").read_text()
    with (
        running_worker(tmp_path, bus) as worker,
        running_server(tmp_path, bus) as server,
        (tmp_path / "runner.log").open("wb") as output,
    ):
        worker.await_log("fence_written")
        wait_for(lambda: server.port("--listen"), 60, "the server")
        process = subprocess.Popen(
            [*command, "--playbook", str(playbook(tmp_path, gates))],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
        try:
            with connect(server.ws_url, subprotocols=["towerbus.v1"], open_timeout=30, close_timeout=1) as socket:
                client = Client(socket)
                with running_bridge(tmp_path, bus, tables, CALLBACK_URL=callback) as bridge:
                    client.read(lambda: len(client.events) >= 20)
                    gates[0].touch()
                    bridge.kill()
                with running_bridge(tmp_path, bus, tables, CALLBACK_URL=callback) as bridge:
                    client.read(lambda: len(client.events) >= 45)
                    gates[1].touch()
                    worker.kill()
                    with running_worker(tmp_path, bus, name="second") as second:
                        client.read(lambda: len(client.events) >= 75)
                        own_broker.settle()
                        gates[2].touch()
                        own_broker.kill()
                        own_broker.recover()
                        client.read(lambda: client.summary is not None)
                        assert second.process.poll() is None
                    await_log(bridge, "bridge_established: callback")
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
    counters = [each["data"]["counter"] for each in client.events]
    assert counters == list(range(1, client.summary["final_counter"] + 1))
    assert client.summary["final_counter"] > 100
    assert not any("gap" in each for each in client.others), client.others
    kinds = [each["data"]["event"] for each in client.events]
    assert (kinds[0], kinds[-1]) == ("playbook_on_start", "playbook_on_stats")
    assert {each["data"]["job"] for each in client.events} == {42}
