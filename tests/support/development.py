"""Runs `make dev`'s command as a real process, on a copy of the source that tests may change."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from support.ports import Ports
from support.running import environment, wait_for

TOP = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECONDS = 60
_CHANGED = re.compile(r"^reloader: changed: ", re.MULTILINE)
_DONE = re.compile(r"^reloader: (?:everything: |.*; what runs goes on)", re.MULTILINE)


class Development:
    """A running `python -m towerbus.dev`.

    Attributes:
        process: supervisord.
        package: The copy of the package `towerbus`.
        output: The file with all that came to the terminal.
        ports: Of the WebSocket, of HTTP, and nginx's for HTTP and HTTPS.
    """

    def __init__(self, process, package, output, ports):
        self.process, self.package, self.output, self.ports = process, package, output, ports
        self._page = (package / "ops" / "health.py").read_text()
        assert '{"alive": True}' in self._page

    @property
    def shown(self):
        return self.output.read_text(errors="replace")

    @property
    def token(self):
        return re.search(r"\?token=(\S+)", self.shown)[1]

    def save(self, version):
        """Save a module so that `/healthz` tells its version."""
        (self.package / "ops" / "health.py").write_text(
            self._page.replace('{"alive": True}', f'{{"alive": {version}}}')
        )

    def version(self):
        """The version that runs; None where nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[1], timeout=10)
        try:
            connection.request("GET", "/healthz")
            return json.loads(connection.getresponse().read())["alive"]
        except OSError:
            return None
        finally:
            connection.close()

    def await_version(self, version):
        self._await(lambda: self.version() == version, f"version {version}")

    def settle(self):
        """Save the first version, and wait until nothing is under way."""
        before = len(_CHANGED.findall(self.shown))
        self.save(0)
        self._await(lambda: len(_CHANGED.findall(self.shown)) > before, "the change to be seen")
        self._await(lambda: len(_DONE.findall(self.shown)) == len(_CHANGED.findall(self.shown)), "the restarts")
        self.await_version(0)

    def await_shown(self, text, times=1):
        """Wait until a text has come to the terminal."""
        self._await(lambda: self.shown.count(text) >= times, text)

    def _await(self, condition, what):
        try:
            wait_for(condition, SECONDS, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.shown}") from None

    def control(self, *words):
        """What supervisorctl says."""
        command = [str(BIN / "supervisorctl"), "-s", f"unix://{self.package.parent}/state/supervisor.sock", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    def status(self, name):
        """State and process id of a program; the id is empty where it does not run."""
        found = re.search(rf"^(?:towerbus:)?{name}\s+(\S+)(?:\s+pid (\d+))?", self.control("status"), re.MULTILINE)
        return found[1], found[2] or ""

    def await_running(self, *names):
        self._await(lambda: all(self.status(name)[0] == "RUNNING" for name in names), f"{names} to run")


@contextmanager
def running_development(directory, *options, **variables):
    """Start it with a copy of the source; it is interrupted at the end, as by Ctrl-C."""
    for name in ("towerbus", "twisted", "etc"):
        shutil.copytree(TOP / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    held = Ports()
    ports = held.numbers[:4]
    output = directory / "output"
    words = ["--state", str(directory / "state"), "--http-port", str(ports[2]), "--https-port", str(ports[3]), *options]
    listen = {
        f"TOWERBUS_{name}": f"tcp:{port}:interface=127.0.0.1"
        for name, port in zip(("LISTEN", "HTTP", "BRIDGE_HTTP"), (*ports[:2], held.numbers[4]), strict=True)
    }
    with output.open("ab") as sink:  # supervisord opens it again for each program: all must append
        process = subprocess.Popen(
            [sys.executable, "-m", "towerbus.dev", *words],
            cwd=directory,
            env=environment(PYTHONPATH=str(directory), **listen, **variables),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    made = Development(process, directory / "towerbus", output, ports)
    try:
        made.await_shown("reloader: watching")
        yield made
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0, made.shown
    finally:
        if process.poll() is None:
            # It ends its children; a kill would leave them.
            os.kill(process.pid, signal.SIGTERM)
            process.wait(SECONDS)
        held.release()
