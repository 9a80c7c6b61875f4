"""examples/django: a real project under gunicorn with several processes; what is committed is broadcast, and only that."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import intakes
from support.intakes import connections, taken
from support.running import environment, running_towerbus, wait_for
from websockets.sync.client import connect

pytestmark = pytest.mark.long

EXAMPLE = Path(__file__).parents[2] / "examples" / "django"
BIN = Path(sys.executable).parent
SECONDS = 60
REQUESTS = 90
PRELOADED = """
from jobs.broadcast import emit_channel_notification
from tower.wsgi import application

emit_channel_notification("jobs-status_changed", {"unified_job_id": 0, "status": "loaded"})
"""
"""An application that emits as it is imported: with --preload the connection is made before the forks."""


class Project:
    """The project, under gunicorn.

    Attributes:
        url: Where it serves.
        log: The file with what it prints.
    """

    def __init__(self, url, log):
        self.url, self.log = url, log

    def ask(self, path, body=None):
        """GET, or POST a body; returns status and answer."""
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def make(self, *names):
        """Make jobs of these names; returns the status."""
        return self.ask("/api/jobs/", {"names": names})[0]

    @property
    def committed(self):
        """The ids of the jobs that there are."""
        return [job["id"] for job in self.ask("/api/jobs/")[1]["results"]]


@contextmanager
def project(directory, *words, module="tower.wsgi", **variables):
    """A copy of the project that serves, with a database of its own."""
    home = directory / "project"
    shutil.copytree(EXAMPLE, home, ignore=shutil.ignore_patterns("*.sqlite3", "__pycache__"))
    (home / "loaded.py").write_text(PRELOADED)
    around = environment(DJANGO_DATABASE=str(directory / "jobs.sqlite3"), PYTHONDONTWRITEBYTECODE="1", **variables)
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=home, env=around, check=True, timeout=SECONDS)
    log = directory / "gunicorn.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [str(BIN / "gunicorn"), "--workers", "3", "--threads", "2", "--bind", "127.0.0.1:0", *words, module],
            cwd=home, env=around, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
        )  # fmt: skip
    try:
        wait_for(lambda: log.read_text().count("Booting worker") == 3, SECONDS, "gunicorn")
        yield Project(log.read_text().partition("Listening at: ")[2].split()[0], log)
        process.terminate()
        assert process.wait(SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def storm(served):
    """Many requests at once, of which a third roll back: their second name is taken. Returns how many went through."""
    assert served.make("taken") == 201

    def request(number):
        return served.make(f"job {number} a", "taken" if number % 3 == 0 else f"job {number} b")

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(request, range(REQUESTS)))
    assert statuses == [409 if number % 3 == 0 else 201 for number in range(REQUESTS)]


def test_what_is_committed_is_broadcast_and_only_that(tmp_path):
    with (
        running_towerbus(tmp_path) as bus,
        connect(bus.ws_url) as client,
        project(tmp_path, TOWERBUS_URL=bus.http_url, TOWERBUS_TOKEN=bus.token) as served,
    ):
        client.send(json.dumps({"groups": {"jobs": ["status_changed"]}}))
        client.recv(20), client.recv(20)
        storm(served)
        committed = served.committed
        assert len(committed) == 1 + 2 * (REQUESTS - REQUESTS // 3)
        found = []
        for _ in committed:
            event = json.loads(client.recv(20))
            found.append(event["unified_job_id"])
            assert event == {"group_name": "jobs", "unified_job_id": found[-1], "status": "pending"}
            # Whoever reads the application on account of the event finds what it speaks of.
            assert served.ask(f"/api/jobs/{found[-1]}/")[0] == 200
        assert sorted(found) == committed
        assert served.ask(f"/api/jobs/{found[0]}/", {"status": "running"})[0] == 200
        assert json.loads(client.recv(20))["status"] == "running", "nothing came between"
        assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize("preload", [True, False])
def test_over_amqp_each_process_has_a_connection_and_a_fork_after_emitting_does_no_harm(
    vhost, broker, tmp_path, preload
):
    intakes.declare_now(vhost)
    words = ["--preload"] if preload else []
    with project(tmp_path, *words, module="loaded", TOWERBUS_URL=vhost) as served:
        storm(served)
        assert 1 < len(connections(broker, vhost)) <= 4
        committed = served.committed
        assert "Traceback" not in served.log.read_text()
    found = [json.loads(event.payload)["unified_job_id"] for message in taken(vhost) for event in message.events]
    assert sorted(found) == [0] * (1 if preload else 3) + committed


def test_without_a_bus_the_application_goes_on_and_says_what_was_not_broadcast(tmp_path):
    with project(tmp_path, TOWERBUS_URL="http://127.0.0.1:9", TOWERBUS_TOKEN="t", TOWERBUS_TIMEOUT="0.2") as served:
        assert served.make("lonely") == 201
        assert served.committed == [1]
        wait_for(lambda: "committed, but not broadcast: jobs-status_changed" in served.log.read_text(), 20, "its word")


def test_a_process_that_is_killed_is_replaced_and_goes_on(tmp_path):
    with (
        running_towerbus(tmp_path) as bus,
        connect(bus.ws_url) as client,
        project(tmp_path, "--preload", module="loaded", TOWERBUS_URL=bus.http_url, TOWERBUS_TOKEN=bus.token) as served,
    ):
        client.send(json.dumps({"groups": {"jobs": ["status_changed"]}}))
        client.recv(20), client.recv(20)
        assert served.make("first") == 201
        booted = served.log.read_text().split("Booting worker with pid: ")[1:]
        for text in booted:
            subprocess.run(["kill", f"-{signal.SIGKILL}", text.split()[0]], check=True)
        wait_for(lambda: served.log.read_text().count("Booting worker") == 6, SECONDS, "new processes")
        wait_for(lambda: made(served, "second"), SECONDS, "an answer")
        assert [json.loads(client.recv(20))["unified_job_id"] for _ in range(2)] == [1, 2]


def made(served, name):
    """Whether a job could be made: a connection may still be in the queue of a process that is gone."""
    try:
        return served.make(name) == 201
    except OSError:
        return False
