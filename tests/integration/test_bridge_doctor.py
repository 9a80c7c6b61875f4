"""`towerbus doctor` looks at bridges too: what each connects to, before it is started."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.hooks import Hooks
from support.producers import channel
from support.running import environment
from support.worker import running_worker

TOWERBUS = str(Path(sys.executable).with_name("towerbus"))

TABLES = """
[[bridge]]
name = "good-queue"
[bridge.source]
kind = "amqp"
url = "{bus}"
queue = "there"

[[bridge]]
name = "bad-queue"
[bridge.source]
kind = "amqp"
url = "{bus}"
queue = "missing"

[[bridge]]
name = "bad-broker"
[bridge.sink]
kind = "amqp"
url = "amqp://tb:wrong@{host}"
exchange = "x"

[[bridge]]
name = "bad-exchange"
[bridge.sink]
kind = "amqp"
url = "{bus}"
exchange = "missing"

[[bridge]]
name = "emit"
[bridge.source]
kind = "http"
listen = "unix:/nowhere/emit.sock"

[[bridge]]
name = "good-hook"
[bridge.sink]
kind = "webhook"
url = "http://127.0.0.1:{port}/"
secret = "0123456789abcdef01234567"

[[bridge]]
name = "bad-hook"
[bridge.sink]
kind = "webhook"
url = "http://127.0.0.1:1/"
secret = "0123456789abcdef01234567"
"""


@pytest.fixture
def installed(vhost, tmp_path):
    with running_worker(tmp_path, vhost) as worker:
        worker.await_log("fence_written")
        with channel(vhost) as opened:
            opened.queue_declare("there", durable=True)
        yield vhost


def examine(tmp_path, tables, *words, bus=""):
    file = tmp_path / "bridges.toml"
    file.write_text(tables)
    done = subprocess.run(
        [TOWERBUS, "doctor", "--json", "--config", str(file), "--bridge-state", str(tmp_path / "state"), *words],
        cwd=tmp_path,
        env=environment(**({"TOWERBUS_BUS": bus} if bus else {})),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert not done.stderr
    return json.loads(done.stdout)


def test_each_bridge_is_looked_at_and_nothing_is_changed(installed, tmp_path):
    with Hooks() as hooks:
        tables = TABLES.format(bus=installed, host=installed.partition("@")[2], port=hooks.port)
        found = examine(tmp_path, tables, bus=installed)
    seen = {(each["check"], each["level"]): each for each in found if each["check"].startswith("bridge ")}
    assert seen.keys() == {
        ("bridge good-queue", "ok"),
        ("bridge bad-queue", "error"),
        ("bridge bad-broker", "error"),
        ("bridge bad-exchange", "error"),
        ("bridge emit", "ok"),
        ("bridge emit", "error"),
        ("bridge good-hook", "ok"),
        ("bridge bad-hook", "error"),
    }
    assert "missing" in seen["bridge bad-queue", "error"]["text"]
    assert "login of user 'tb' is refused" in seen["bridge bad-broker", "error"]["text"]
    assert "/nowhere" in seen["bridge emit", "error"]["text"]
    assert "127.0.0.1:1" in seen["bridge bad-hook", "error"]["text"]
    assert all(each["mend"] for (_, level), each in seen.items() if level == "error")
    assert "wrong" not in json.dumps(found)
    assert "--auth" not in json.dumps(found), "nobody logs in to a bridge"
    assert not (tmp_path / "state").exists()


def test_mistakes_in_the_tables_are_all_named(installed, tmp_path):
    tables = '[[bridge]]\nname = "a"\n[[bridge]]\nname = "b"\n[bridge.source]\nkind = "x"\n'
    found = examine(tmp_path, tables, bus=installed)
    errors = [each["text"] for each in found if each["level"] == "error"]
    assert any("bridge 'a': got neither" in text for text in errors)
    assert any("bridge 'b': source.kind: got 'x'" in text for text in errors)


def test_bridges_without_rabbitmq_are_named(tmp_path):
    tables = '[[bridge]]\nname = "e"\n[bridge.source]\nkind = "http"\nlisten = "unix:/tmp/e.sock"\n'
    found = examine(tmp_path, tables)
    assert ("configuration", "bridges need RabbitMQ as the bus, and no --bus is given") in [
        (each["check"], each["text"]) for each in found if each["level"] == "error"
    ]
