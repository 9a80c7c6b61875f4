"""What somebody does who has just cloned the project: the printed lines, a third party's client, curl."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.running import running_towerbus, wait_for
from websockets.sync.client import connect

from towerbus import Emitter

BIN = Path(sys.executable).parent
GROUPS = json.dumps({"groups": {"jobs": ["status_changed"]}})


def printed(bus):
    """The lines that are for people: the URL, one to watch and one to emit."""
    lines = bus.output.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("ws://"))
    return lines[start : start + 3]


@pytest.fixture
def bus(tmp_path):
    with running_towerbus(tmp_path) as running:
        yield running


def test_events_from_the_command_from_curl_and_from_python_arrive_in_order(bus):
    with connect(bus.ws_url) as client:
        assert json.loads(client.recv(5)) == {"accept": True, "user": 1}
        client.send(GROUPS)
        assert json.loads(client.recv(5))["groups_joined"] == ["jobs-status_changed"]
        payload = '{"n":  1, "text": "\\u00e4"}'
        subprocess.run(
            [str(BIN / "towerbus"), "emit", "--url", bus.http_url, "--token", bus.token, "jobs", "status_changed", payload],
            check=True, timeout=30, capture_output=True,
        )  # fmt: skip
        body = '{"group": "jobs-status_changed", "payload": {"n":2}}'
        done = subprocess.run(
            ["curl", "-sS", "-H", f"Authorization: Bearer {bus.token}", f"{bus.http_url}/emit", "-d", body],
            check=True, timeout=30, capture_output=True, text=True,
        )  # fmt: skip
        assert json.loads(done.stdout) == {"accepted": 1}
        with Emitter(bus.http_url, bus.token) as emitter:
            emitter.emit("jobs", "status_changed", {"n": 3})
        assert json.loads(client.recv(5)) == json.loads(payload)
        assert client.recv(5) == '{"n":2}'
        assert json.loads(client.recv(5)) == {"n": 3}


def test_the_printed_lines_work_pasted_as_they_are(bus):
    url, watch, emit = printed(bus)
    assert url == bus.ws_url
    watching = subprocess.Popen(
        [*shlex.split(watch), "--count", "1"], stdout=subprocess.PIPE, text=True, cwd=bus.output.parent
    )

    def seen():
        # Until the watcher has subscribed, what is emitted is not its business.
        subprocess.run(shlex.split(emit), check=True, timeout=30, capture_output=True, cwd=bus.output.parent)
        return watching.poll() is not None

    wait_for(seen, 20, "the event")
    assert json.loads(watching.stdout.read()) == {"unified_job_id": 1, "status": "running"}
    watching.stdout.close()


def test_the_end_is_told_to_clients_and_comes_at_once(tmp_path):
    with running_towerbus(tmp_path) as bus:
        clients = [connect(bus.ws_url, legacy=True) for _ in range(3)]
        for client in clients:
            client.recv(5)
    for client in clients:
        wait_for(lambda client=client: client.close_code is not None, 5, "the close")
        assert client.close_code == 1012


def test_no_token_is_ever_logged(bus):
    with connect(bus.ws_url) as client:
        client.recv(5)
    with pytest.raises(Exception, match="404"):
        connect(bus.ws_url.replace("/websocket/", "/elsewhere/"), legacy=True)
    subprocess.run(
        ["curl", "-sS", f"{bus.http_url}/emit?token={bus.token}", "-d", "{"], check=True, capture_output=True
    )
    subprocess.run(["curl", "-sS", f"{bus.http_url}/elsewhere?token={bus.token}"], check=True, capture_output=True)
    assert [line for line in bus.output.read_text().splitlines() if bus.token in line] == printed(bus)
