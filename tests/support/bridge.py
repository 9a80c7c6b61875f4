"""Runs the real bridge as a real process."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.running import ANY_PORT, ending, twistd, wait_for

STARTS_WITHIN = 30.0
STOPS_WITHIN = 15.0
_PORT = re.compile(r"listening: --bridge-http at IPv4Address\(type='TCP', host='127.0.0.1', port=(\d+)\)")


class Bridge:
    """A `twistd towerbus-bridge`.

    Attributes:
        process: The process.
    """

    def __init__(self, process, output, begin):
        self.process, self._output, self._begin = process, output, begin

    @property
    def log(self):
        """All that it has printed and logged; what one before it has written stands before that in the file."""
        return self._output.read_bytes()[self._begin :].decode(errors="replace")

    @property
    def port(self):
        """Of its plain HTTP; None where it does not listen yet."""
        found = _PORT.findall(self.log)
        return int(found[-1]) if found else None

    def listening(self, name):
        """The port of a source that listens on one of the system's choice."""
        return int(re.findall(rf"source_listening: {name} at IPv4Address.*port=(\d+)\)", self.log)[-1])

    def get(self, path):
        """Ask for a page: the status, and the body."""
        wait_for(lambda: self.port is not None, STARTS_WITHIN, "its HTTP")
        return ask(self.port, "GET", path)

    def await_ready(self, seconds=STARTS_WITHIN):
        """Wait until all is well."""
        self._await(lambda status, said: status == 200, seconds)

    def await_broken(self, name, words, seconds=STARTS_WITHIN):
        """Wait until something is not well, for a reason with these words."""
        self._await(lambda _, said: words in said["broken"].get(name, ""), seconds)

    def await_well(self, name, seconds=STARTS_WITHIN):
        """Wait until something is well, whatever the rest does."""
        return self._await(lambda _, said: name not in said["broken"], seconds)

    def metric(self, name, **labels):
        """The value of a metric."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                return float(line.rpartition(" ")[2])
        return None

    def stop(self):
        """Stop it as systemd does, and wait."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOPS_WITHIN)
        assert code in {0, -signal.SIGTERM}, f"ended with {code}:\n{self.log}"

    def kill(self):
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def _await(self, condition, seconds):
        seen = [None, {}]

        def said():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            if self.port is None:
                return False
            seen[:] = self.get("/readyz")
            return condition(*seen)

        try:
            wait_for(said, seconds, "/readyz")
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}\n{self.log}") from None
        return seen[1]


class UnixConnection(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(where, method, path, body=None, headers=None):
    """Ask a port or a Unix socket; returns the status and the body, read as JSON where it is."""
    if isinstance(where, int):
        connection = http.client.HTTPConnection("127.0.0.1", where, timeout=30)
    else:
        connection = UnixConnection(where)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    is_json = answer.getheader("content-type", "").startswith("application/json")
    return answer.status, json.loads(text) if is_json else text


@contextmanager
def running_bridge(directory, url, tables, *more, name="bridge", **variables) -> Iterator[Bridge]:
    """Start a bridge; it is ended with the context, if it has not ended before.

    Args:
        directory: Where its configuration, its state and its output are.
        url: The bus.
        tables: The tables `[[bridge]]`, as TOML.
        *more: More options.
        name: Of its files.
        **variables: More of its environment.
    """
    file = directory / f"{name}.toml"
    file.write_text(tables)
    output = directory / f"{name}.log"
    with output.open("ab") as sink:
        begin = sink.tell()
        own = ("--config", str(file), "--bridge-http", ANY_PORT, "--bridge-state", str(directory / f"{name}-state"))
        process = twistd(directory, sink, "towerbus-bridge", *own, *more, TOWERBUS_BUS=url, **variables)
    with ending(process, STOPS_WITHIN):
        yield Bridge(process, output, begin)


def await_log(bridge, text, seconds=STARTS_WITHIN):
    """Wait until a text stands in its log."""
    until = time.monotonic() + seconds
    while text not in bridge.log:
        assert time.monotonic() < until, f"waited {seconds} s for {text!r} in:\n{bridge.log}"
        time.sleep(0.02)
