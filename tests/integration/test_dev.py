"""`make dev`: saved files come into effect, and nothing else restarts anything."""

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time

import pytest
from support.bridge import ask
from support.development import BIN, TOP, running_development
from support.running import environment
from websockets.sync.client import connect

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def module_dev(tmp_path_factory):
    with running_development(tmp_path_factory.mktemp("dev")) as made:
        yield made


@pytest.fixture
def dev(module_dev):
    """All of it runs, with the source as it was at first."""
    module_dev.control("start", "towerbus:everything")
    module_dev.settle()
    module_dev.await_running("everything", "reloader", "nginx")
    return module_dev


def test_events_go_through_nginx_with_the_token_that_was_printed(dev):
    url = f"ws://127.0.0.1:{dev.ports[2]}/websocket/?token={dev.token}"
    assert url in dev.shown
    with connect(url, open_timeout=20) as client:
        assert json.loads(client.recv(20)) == {"accept": True, "user": 1}
        client.send('{"groups": {"jobs": ["x"]}}')
        client.recv(20)
        words = [str(BIN / "towerbus"), "emit", "--url", f"http://127.0.0.1:{dev.ports[2]}", "jobs", "x", '{"n":1}']
        subprocess.run(words, check=True, timeout=60, env=environment(TOWERBUS_TOKEN=dev.token))
        assert client.recv(20) == '{"n":1}'


def test_of_three_saves_within_a_second_the_last_runs(dev):
    for version in (1, 2, 3):
        dev.save(version)
        time.sleep(0.3)
    dev.await_version(3)


def test_a_save_in_the_middle_of_a_restart_counts(dev):
    for version in (10, 11, 12):
        dev.save(version)
        dev.await_version(version)  # it has read its files, and supervisord still waits to see whether it stays


def test_the_log_outlives_a_restart(dev):
    end = position(dev)
    dev.save(20)
    dev.await_version(20)
    assert position(dev).partition("-")[0] == end.partition("-")[0]


def position(dev):
    with connect(f"ws://127.0.0.1:{dev.ports[0]}/websocket/?token={dev.token}", subprotocols=["towerbus.v1"]) as client:
        client.recv(20)
        client.send('{"groups": {"jobs": ["x"]}}')
        return json.loads(client.recv(20))["position"]


def test_what_an_editor_leaves_about_restarts_nothing(dev):
    _, before = dev.status("everything")
    for name in (
        ".health.py",
        ".#health.py",
        "health.py~",
        ".health.py.swp",
        "4913",
        "health.txt",
        "flycheck_health.py",
    ):
        (dev.package / "ops" / name).write_text("alive = 1")
    (dev.package / ".idea").mkdir()
    (dev.package / ".idea" / "x.py").write_text("alive = 1")
    (dev.package / "other.py").write_text("alive = 1")  # this one counts: whatever came before it has been seen
    dev.await_shown("reloader: changed: other.py\n")
    dev.settle()
    assert dev.status("everything")[1] != before
    (dev.package / "other.py").unlink()
    dev.settle()
    named = [line for line in dev.shown.splitlines() if line.startswith("reloader: changed:")]
    files = {name for line in named for name in line.removeprefix("reloader: changed: ").split(", ")}
    assert files == {"health.py", "other.py"}


def test_a_process_that_was_stopped_by_hand_stays_stopped(dev):
    dev.control("stop", "towerbus:everything")
    dev.save(30)
    dev.await_shown("reloader: everything: left as it is, stopped by hand")
    assert dev.status("everything")[0] == "STOPPED"
    dev.control("start", "towerbus:everything")
    dev.await_version(30)


def test_a_syntax_error_is_shown_and_the_old_state_runs_on(dev):
    _, before = dev.status("everything")
    broken = dev.package / "ops" / "health.py"
    good = broken.read_text()
    broken.write_text(good + "\ndef oops(:\n")
    line = good.count("\n") + 2
    fault = f"reloader: {broken}: line {line}: invalid syntax; what runs goes on until this is mended"
    dev.await_shown(fault)
    # Another file that is well does not make the broken one good.
    (dev.package / "other.py").write_text("x = 1")
    dev.await_shown(fault, 2)
    assert dev.status("everything")[1] == before
    assert dev.version() == 0
    (dev.package / "other.py").unlink()
    dev.await_shown(fault, 3)
    dev.save(41)
    dev.await_version(41)


def test_what_ends_at_its_start_is_tried_again_at_the_next_change(dev):
    tap = dev.package / "tap.py"
    good = tap.read_text()
    tap.write_text(good + "\nimport nothing_of_that_name\n")
    dev.await_shown("reloader: everything: started, and ended at once")
    tap.write_text(good)
    dev.save(50)
    dev.await_version(50)


def test_ctrl_c_ends_all(tmp_path):
    with running_development(tmp_path) as dev:
        dev.await_running("everything", "nginx")
        dev.await_version(version=True)
    for port in dev.ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_with_rabbitmq_server_worker_and_bridge_are_restarted_each_as_it_stood(tmp_path, vhost):
    with running_development(tmp_path, TOWERBUS_BUS=vhost) as dev:
        dev.await_running("server", "worker", "bridge", "nginx")
        dev.await_shown("listening: --listen")
        with connect(f"ws://127.0.0.1:{dev.ports[2]}/websocket/?token={dev.token}", open_timeout=20) as client:
            assert json.loads(client.recv(20))["accept"] is True
            client.send('{"groups": {"jobs": ["status_changed"]}}')
            client.recv(20)
            # The line that was printed for that.
            dev.await_shown("source_listening: emit")
            (line,) = re.findall("^through a bridge: (curl .*)$", dev.shown, re.MULTILINE)
            words = shlex.split(line)
            body = words[words.index("-d") + 1]
            assert ask(words[words.index("--unix-socket") + 1], "POST", "/emit", body)[0] == 202
            assert json.loads(client.recv(20)) == json.loads(body)["payload"]
        server, worker, bridge = (dev.status(name) for name in ("server", "worker", "bridge"))
        dev.save(1)
        dev.await_version(1)
        dev.await_shown("reloader: server: restarted")
        assert dev.status("server") != server
        assert dev.status("worker") != worker
        dev.await_shown("reloader: bridge: restarted")
        assert dev.status("bridge") != bridge
        dev.control("stop", "towerbus:worker")
        dev.save(2)
        dev.await_version(2)
        dev.await_shown("reloader: worker: left as it is")
        assert dev.status("worker")[0] == "STOPPED"


def test_bridges_of_ones_own_run_with_rabbitmq_and_are_said_to_be_left_out_without(tmp_path, vhost):
    config = tmp_path / "own.toml"
    config.write_text(
        f'[[bridge]]\nname = "own"\n[bridge.source]\nkind = "http"\nlisten = "unix:{tmp_path}/own.sock:mode=600"\n'
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with running_development(tmp_path / "a", TOWERBUS_BUS=vhost, TOWERBUS_CONFIG=str(config)) as dev:
        dev.await_shown("source_listening: own")
        assert "through a bridge" not in dev.shown
    with running_development(tmp_path / "b", TOWERBUS_CONFIG=str(config)) as dev:
        dev.await_running("everything")
        assert f"the bridges in {config} are left out: they need RabbitMQ" in dev.shown


WRONG = [
    (
        {"TOWERBUS_OUTBOX": "many"},
        "make dev: TOWERBUS_OUTBOX: got 'many', wanted a whole number of bytes, 1024 or more\n",
    ),
    ({"TOWERBUS_CONFIG": "/nowhere.toml"}, "make dev: /nowhere.toml: can't be read: No such file or directory\n"),
]


@pytest.mark.parametrize(("variables", "said"), WRONG)
def test_a_mistake_in_the_environment_is_told_before_anything_starts(tmp_path, variables, said):
    assert _refused(tmp_path, **variables) == said


def _refused(directory, **variables):
    for name in ("towerbus", "etc"):
        shutil.copytree(TOP / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    return subprocess.run(
        [sys.executable, "-m", "towerbus.dev"], cwd=directory, env=environment(PYTHONPATH=str(directory), **variables),
        capture_output=True, text=True, timeout=60, check=False,
    ).stderr  # fmt: skip
