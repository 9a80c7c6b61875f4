"""`twistd towerbus` on its embedded logs: what those who watch over it see, and what outlives it."""

import http.client
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.running import environment, running_towerbus
from websockets.sync.client import connect

TOWERBUS = str(Path(sys.executable).with_name("towerbus"))


def get(running, path):
    connection = http.client.HTTPConnection(running.http_url.partition("//")[2], timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def emit(running, payload):
    command = [TOWERBUS, "emit", "--url", running.http_url, "--token", running.token, "jobs", "x", payload]
    subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize("bus", ["memory:", "sqlite:log.db"])
def test_it_is_ready_once_it_listens(tmp_path, bus):
    with running_towerbus(tmp_path, "--bus", bus) as running:
        emit(running, '{"n":1}')
        assert json.loads(get(running, "/healthz")[1]) == {"alive": True}
        status, body = get(running, "/readyz")
        said = json.loads(body)
        assert (status, said["ready"], said["broken"]) == (200, True, {})
        assert said["positions"]["end"].endswith("-1")
        assert "towerbus_tail_records 1.0" in get(running, "/metrics")[1] or bus != "memory:"
        assert get(running, "/elsewhere")[0] == 404


def test_what_is_in_the_file_outlives_the_process(tmp_path):
    with (
        running_towerbus(tmp_path, "--bus", "sqlite:log.db") as running,
        connect(running.ws_url, subprotocols=["towerbus.v1"]) as client,
    ):
        client.send('{"groups": {"jobs": ["x"]}}')
        emit(running, '{"n":1}')
        position = None
        while position is None:
            message = json.loads(client.recv(timeout=20))
            position = message["position"] if "data" in message else None
        emit(running, '{"n":2}')
    with (
        running_towerbus(tmp_path, "--bus", "sqlite:log.db") as running,
        connect(running.ws_url, subprotocols=["towerbus.v1"]) as client,
    ):
        emit(running, '{"n":3}')
        client.send(json.dumps({"groups": {"jobs": ["x"]}, "since": position}))
        found = []
        while len(found) < 2:
            message = json.loads(client.recv(timeout=20))
            assert message.get("recovered", True)
            if "data" in message:
                found.append(message["data"]["n"])
        assert found == [2, 3]
