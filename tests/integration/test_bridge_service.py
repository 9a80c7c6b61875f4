"""`twistd towerbus-bridge`: what it says when it can't start, and the examples."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.bridge import ask, running_bridge
from support.hooks import Hooks
from support.running import TWISTD, environment, wait_for
from support.worker import running_worker

from towerbus.bridge.configuration import read

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples" / "bridges"
GOOD = '[[bridge]]\nname = "a"\n[bridge.source]\nkind = "amqp"\nurl = "amqp://127.0.0.1:1/"\nqueue = "q"\n'
HTTP = '[[bridge]]\nname = "b"\n[bridge.source]\nkind = "http"\nlisten = "{}"\n'


def refused(tmp_path, tables, *options, bus="amqp://127.0.0.1:1/"):
    """Start one that can't; returns what it says."""
    file = tmp_path / "b.toml"
    file.write_text(tables)
    done = subprocess.run(
        [TWISTD, "-n", "--pidfile=", "towerbus-bridge", "--config", str(file), *options],
        cwd=tmp_path,
        env=environment(TOWERBUS_BUS=bus),
        capture_output=True,
        text=True,
        timeout=60,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 1, text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ("", "bridge: there is none"),
        ("bridge = []", "bridge: there is none"),
        ("bridge = 5", "wanted are tables [[bridge]]"),
        (GOOD.replace('"q"', "5"), "bridge 'a': source.queue: got 5, wanted a text"),
        (
            GOOD.replace("amqp://127.0.0.1:1/", "http://me:hidden@h/"),
            "bridge 'a': source: url: scheme 'http' is not amqp",
        ),
        (
            HTTP.format("unix:/tmp/x.sock"),
            "bridge 'b': source: the spool is kept in a directory: give one with --bridge-state",
        ),
        (HTTP.format("unix:"), "bridge 'b': source: "),
        (GOOD + "[nothing]\n", "nothing: there is no such option"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(tmp_path, tables, words):
    text = refused(tmp_path, tables)
    assert words in text
    assert "hidden" not in text


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    text = refused(
        tmp_path, GOOD.replace('"q"', "5") + HTTP.format("tcp:1") + GOOD.replace('"a"', '"c"').replace("kind", "king")
    )
    assert "bridge 'a': source.queue" in text
    assert "bridge 'b': source: auth: none is given" in text
    assert "bridge 'c': source.kind: got nothing" in text


@pytest.mark.parametrize("bus", ["memory:", "sqlite:x.db", "http://h"])
def test_the_bus_has_to_be_rabbitmq(tmp_path, bus):
    text = refused(tmp_path, GOOD, bus=bus)
    assert "TOWERBUS_BUS: got " in text


def test_a_refused_login_of_the_bus_ends_it(tmp_path, vhost):
    text = refused(
        tmp_path, GOOD, "--bridge-http", "tcp:0:interface=127.0.0.1", bus=vhost.replace("tb:tb@", "tb:hidden@")
    )
    assert "login of user 'tb' is refused" in text
    assert "hidden" not in text


def test_it_stops_in_order_while_nothing_can_be_reached(tmp_path):
    socket = tmp_path / "e.sock"
    with running_bridge(tmp_path, "amqp://127.0.0.1:1/", GOOD + HTTP.format(f"unix:{socket}")) as bridge:
        wait_for(socket.exists, 30, "the socket")
        event = json.dumps({"group": "jobs", "type": "x", "payload": {"n": 1}})
        assert ask(socket, "POST", "/emit", event)[0] == 202

        def broken():
            return bridge.get("/readyz")[1]["broken"]

        wait_for(lambda: "refused" in broken()["bus"], 30, "the reason")
        assert broken().keys() == {"bus", "bridge a"}
        bridge.stop()
        assert "bridge_unfinished" not in bridge.log
        assert "Traceback" not in bridge.log


def test_the_examples_can_be_read():
    variables = {
        "CALLBACK_URL": "amqp://h/",
        "LAKE_URL": "amqp://h/",
        "HOOK_SECRET": "x" * 24,
        "OUTBOX_URL": "x",
        "AWX_URL": "x",
    }
    files = sorted(EXAMPLES.glob("*.toml"))
    assert {"callback.toml", "emit.toml", "lake.toml", "hook.toml"} <= {file.name for file in files}
    for name in ("callback.toml", "emit.toml", "lake.toml", "hook.toml"):
        assert read(tomllib.loads((EXAMPLES / name).read_text())["bridge"], name, variables)


def test_the_examples_of_a_socket_and_of_webhooks_work_together(vhost, tmp_path):
    secret = "0123456789abcdef0123456789"
    with Hooks() as free:
        port = free.port
    receiver = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "receive_hooks.py"), str(port)],
        env=environment(HOOK_SECRET=secret),
        stdout=subprocess.PIPE,
        text=True,
    )
    socket = tmp_path / "emit.sock"
    tables = (EXAMPLES / "emit.toml").read_text().replace("/tmp/emit.sock", str(socket))
    tables += (EXAMPLES / "hook.toml").read_text().replace("8080", str(port))
    try:
        with running_worker(tmp_path, vhost), running_bridge(tmp_path, vhost, tables, HOOK_SECRET=secret) as bridge:
            wait_for(lambda: "sink_begins: hook" in bridge.log, 30, "the sink")
            event = {"group": "jobs", "type": "status_changed", "payload": {"n": 1}, "id": "n1"}
            command = ["curl", "-sS", "--unix-socket", str(socket), "http://localhost/emit", "-d", json.dumps(event)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert json.loads(done.stdout) == {"accepted": 1}
            assert ask(port, "HEAD", "/")[0] == 204, "as the doctor looks at it"
            assert receiver.stdout.readline() == 'jobs status_changed {"n": 1}\n'
    finally:
        receiver.kill()
        receiver.communicate()
