"""Runs the real bridge as a real process, for sources that feed the bus."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from contextlib import contextmanager

from support.bridge import _PORT, ask
from support.running import ANY_PORT, TWISTD, environment, twistd

STARTS_WITHIN = 40.0
STOPS_WITHIN = 15.0


class Feeding:
    """A `twistd towerbus-bridge` that may be killed and started again.

    Args:
        directory: Where its configuration and its output are.
        url: The bus.
        tables: Its configuration.
        variables: More of the environment.
    """

    def __init__(self, directory, url, tables, **variables):
        self._directory, self._variables = directory, variables
        self._url = url
        self._config = directory / "bridge.toml"
        self._config.write_text(tables)
        self._output = directory / "bridge.log"
        self._output.write_text("")
        self._begins = 0
        self.process = None

    def start(self):
        assert self.process is None
        self._begins = len(self._output.read_bytes())
        with self._output.open("ab") as sink:
            own = ("--config", str(self._config), "--bridge-http", ANY_PORT)
            self.process = twistd(
                self._directory, sink, "towerbus-bridge", *own, TOWERBUS_BUS=self._url, **self._variables
            )

    def kill(self):
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        """Stop it as systemd does, and wait."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOPS_WITHIN)
        assert code in {0, -signal.SIGTERM}, f"ended with {code}:\n{self.log}"
        self.process = None

    def restart(self):
        self.kill()
        self.start()

    @property
    def log(self):
        """All that it has printed and logged since its last start."""
        return self._output.read_bytes()[self._begins :].decode(errors="replace")

    def await_log(self, text, times=1, seconds=STARTS_WITHIN):
        """Wait until a text stands in its log, so many times."""
        self._await(lambda: self.log.count(text) >= times, seconds, f"{text!r} x {times}")

    def await_well(self, seconds=STARTS_WITHIN):
        """Wait until nothing is wrong."""
        self._await(lambda: self._port and self.get("/readyz")[0] == 200, seconds, "/readyz")

    def await_broken(self, text, seconds=STARTS_WITHIN):
        """Wait until a text stands in `/readyz`."""
        self._await(lambda: self._port and text in str(self.get("/readyz")[1]), seconds, f"{text!r} in /readyz")

    def measure(self, name):
        """A number of `/metrics`."""
        found = re.search(rf"^towerbus_bridge_{name}{{[^}}]*}} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert found, self.get("/metrics")[1]
        return float(found[1])

    def get(self, path):
        """Ask for a page; returns the status, and the text, or what its JSON says."""
        return ask(self._port, "GET", path)

    @property
    def _port(self):
        found = _PORT.search(self.log)
        return int(found[1]) if found else None

    def _await(self, condition, seconds, what):
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < until, f"waited {seconds} s for {what} in:\n{self.log}"
            time.sleep(0.02)


@contextmanager
def feeding(directory, url, tables, **variables):
    """Start a bridge; it is ended with the context, if it has not ended before."""
    bridge = Feeding(directory, url, tables, **variables)
    try:
        bridge.start()
        yield bridge
    finally:
        if bridge.process is not None:
            bridge.kill()


def refused(directory, tables, **variables):
    """Start a bridge that must refuse to start; returns what it says."""
    config = directory / "bridge.toml"
    config.write_text(tables)
    done = subprocess.run(
        [TWISTD, "-n", "--pidfile=", "towerbus-bridge", "--config", str(config)],
        cwd=directory,
        env=environment(TOWERBUS_BUS="amqp://127.0.0.1:9", **variables),
        capture_output=True,
        text=True,
        timeout=STARTS_WITHIN,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


def payloads(found):
    """What JSON says that events hold."""
    return [json.loads(event.payload) for event in found]
