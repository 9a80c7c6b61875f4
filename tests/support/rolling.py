"""A rolling restart of two servers on one port, under load: what both the quick and the large test of it do."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from support.server import running_server
from support.worker import running_worker

from towerbus import Emitter

RATE = 100
"""Events each second."""


class Load:
    """Emits events at a steady rate until it is told to stop; each counts as emitted when it was confirmed."""

    def __init__(self, url):
        self.emitted, self._url, self._over = 0, url, threading.Event()
        self.failure = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *reason):
        self._over.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self):
        try:
            with Emitter(self._url, timeout=60) as emitter:
                begin = time.monotonic()
                while not self._over.is_set():
                    self._emit(emitter, {"n": self.emitted})
                    self._over.wait(max(0.0, begin + self.emitted / RATE - time.monotonic()))
                self._emit(emitter, {"n": self.emitted, "last": True})
        except Exception as error:  # noqa: BLE001 - it is raised where the load ends
            self.failure = error

    def _emit(self, emitter, payload):
        emitter.emit("jobs", "status_changed", payload)
        self.emitted += 1


class Crowd:
    """The clients' process."""

    def __init__(self, port, token, count):
        script = Path(__file__).with_name("returning.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(port), token, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def report(self):
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.process.kill()
        self.process.communicate()


def rolling_restart(directory, url, port, clients, drain):
    """Restart one server after the other while clients listen and events are emitted.

    Returns:
        What the clients report, how many events were emitted, and the clients of each server before and after.
    """
    listen = ("--listen", f"tcp:{port}:interface=127.0.0.1:reuseport=yes", "--drain", str(drain))
    with running_worker(directory, url), contextlib.ExitStack() as servers:
        running = [servers.enter_context(running_server(directory, url, *listen, name=name)) for name in ("a", "b")]
        for server in running:
            server.await_ready()
        with Crowd(port, running[0].token, clients) as crowd:
            crowd.report()
            before = [connected(server) for server in running]
            with Load(url) as load:
                while load.emitted < RATE and load.failure is None:
                    time.sleep(0.05)
                for place, name in enumerate(("a2", "b2")):
                    running[place].stop()
                    assert "drain_cut" not in running[place].log, running[place].log
                    running[place] = servers.enter_context(running_server(directory, url, *listen, name=name))
                    running[place].await_ready()
            report = crowd.report()
            after = [connected(server) for server in running]
    return report, load.emitted, before, after


def connected(server):
    """How many v1 clients a server has, as its metrics say."""
    _, metrics = server.get("/metrics")
    return int(float(next(line.split()[1] for line in metrics.splitlines() if 'dialect="towerbus.v1"' in line)))


def check(report, emitted, before, after, clients, drain):
    """Nothing lost, nothing repeated, and everybody came back when asked to."""
    assert report["last"] == [emitted - 1]
    counts = {what: count for what, count in report["counts"].items() if not what.startswith("tried again")}
    # Once from the first server, once from the second, for those who came back to it meanwhile.
    assert set(counts) == {"close 1012"}, counts
    assert counts["close 1012"] == len(report["pauses"]) >= clients
    assert all(count > clients / 5 for count in before), f"spread unevenly: {before}"
    assert sum(after) == clients, after
    # They were asked to come back at different times within the drain, and did.
    pauses = sorted(report["pauses"])
    assert pauses[0] < drain / 4
    assert pauses[-1] > drain * 3 / 4
    assert all(0 <= pause <= drain for pause in pauses)
