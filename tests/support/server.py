"""Runs the real server as a real process."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.running import ANY_PORT, ending, environment, twistd, wait_for
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

STARTS_WITHIN = 40.0
STOPS_WITHIN = 15.0
BIN = Path(sys.executable).parent
KEY = b"0123456789abcdef0123456789abcdef"
_PORT = r"listening: {option} at IPv4Address\(type='TCP', host='127.0.0.1', port=(\d+)\)"


class Server:
    """A `twistd towerbus-server`.

    Attributes:
        process: The process.
        token: A token for everything.
    """

    def __init__(self, process, output, token):
        self.process, self._output, self.token = process, output, token

    @property
    def log(self):
        """All that it has printed and logged."""
        return self._output.read_text(errors="replace")

    def port(self, option):
        """Where it listens; None where it does not yet."""
        found = re.search(_PORT.format(option=option), self.log)
        return int(found[1]) if found else None

    @property
    def http_url(self):
        return f"http://127.0.0.1:{self.port('--http')}"

    @property
    def ws_url(self):
        return f"ws://127.0.0.1:{self.port('--listen')}/websocket/?token={self.token}"

    def get(self, path):
        """Ask for a page.

        Returns:
            The status, and the body: what its JSON says, where it is JSON.
        """
        return self._ask("GET", path, None)

    def emit(self, *numbers, topic=("jobs", "x"), ids=None):
        """Post events with numbers in them; returns the status."""
        events = [
            {"group": topic[0], "type": topic[1], "payload": {"n": number}, "id": ids[at] if ids else secrets.token_hex(8)}
            for at, number in enumerate(numbers)
        ]  # fmt: skip
        return self._ask("POST", "/emit", json.dumps(events))[0]

    def emit_surely(self, number, seconds=60):
        """Post an event until it is confirmed, with one id."""
        id_ = f"n{number}"

        def confirmed():
            try:
                return self.emit(number, ids=[id_]) == 202
            except OSError:
                return False

        wait_for(confirmed, seconds, f"the confirmation of {number}")

    def ready(self):
        """What `/readyz` says: the status, and what is broken."""
        status, said = self.get("/readyz")
        return status, said["broken"]

    def await_ready(self, seconds=STARTS_WITHIN):
        """Wait until it is ready."""
        self.await_page("/readyz", lambda status, _: status == 200, seconds)

    def await_broken(self, *hops, seconds=STARTS_WITHIN):
        """Wait until one of these hops is broken; returns the reason."""
        _, said = self.await_page("/readyz", lambda _, said: said["broken"].keys() & set(hops), seconds)
        return next(reason for hop, reason in said["broken"].items() if hop in hops)

    def await_page(self, path, condition, seconds=STARTS_WITHIN):
        """Wait until a page says something; returns status and body."""
        seen = []

        def said():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            seen[:] = self.get(path) if self.port("--http") else (None, {})
            return seen[0] and condition(*seen)

        try:
            wait_for(said, seconds, path)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}\n{self.log}") from None
        return seen

    def stop(self):
        """Stop it as systemd does, and wait."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOPS_WITHIN)
        assert code in {0, -signal.SIGTERM}, f"ended with {code}:\n{self.log}"

    def _ask(self, method, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port("--http"), timeout=30)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        is_json = answer.getheader("content-type", "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text


class V1:
    """A client of the dialect `towerbus.v1` that keeps what it gets; it connects as a context manager.

    Attributes:
        events: The numbers of the events, in order.
        positions: The positions of these.
        others: All other messages.
    """

    def __init__(self, server, groups=None, **more):
        self.events, self.positions, self.others = [], [], []
        self._connecting = connect(server.ws_url, subprotocols=["towerbus.v1"], open_timeout=20, close_timeout=1)
        self._wish = {"groups": groups or {"jobs": ["x"]}, **more}

    def say(self, message):
        self._socket.send(json.dumps(message))

    def read(self, condition, seconds=30):
        """Read until a condition holds."""
        until = time.monotonic() + seconds
        while not condition(self):
            left = until - time.monotonic()
            assert left > 0, f"it never came: {self.events[-5:]} {self.others}"
            try:
                message = json.loads(self._socket.recv(timeout=min(left, 1)))
            except TimeoutError:
                continue
            if "data" in message:
                self.events.append(message["data"]["n"])
                self.positions.append(message["position"])
            else:
                self.others.append(message)
        return self

    def until(self, count, seconds=30):
        """Read until there are so many events; returns their numbers."""
        return self.read(lambda _: len(self.events) >= count, seconds).events

    def told(self, key, seconds=30):
        """Read until a message has a key; returns what it says there, of the newest such message."""
        self.read(lambda _: any(key in message for message in self.others), seconds)
        return [message[key] for message in self.others if key in message][-1]

    @property
    def stale(self):
        """What was said of staleness, in order."""
        return [message["stale"] for message in self.others if "stale" in message]

    def __enter__(self):
        self._socket = self._connecting.__enter__()
        self.say(self._wish)
        return self

    def __exit__(self, *reason):
        with contextlib.suppress(ConnectionClosed):
            self._connecting.__exit__(*reason)


def token(directory):
    """A key for `--auth`, and a token for everything that it is good for."""
    key = directory / "key"
    key.write_bytes(KEY)
    command = [str(BIN / "towerbus"), "token", "--key", str(key), "--user", "7", "--subscribe", "*", "--emit", "*"]
    return key, subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout.strip()


def options(key):
    """Options for a server on ports of the system's choice."""
    return ["--auth", f"jwt:{key}", "--listen", ANY_PORT, "--http", ANY_PORT]


@contextmanager
def running_server(directory, url, *more, name="server", **variables) -> Iterator[Server]:
    """Start a server; it is ended with the context, if it has not ended before.

    Args:
        directory: Where its key and its output are.
        url: The broker.
        *more: More options.
        name: Of its output.
        **variables: More of its environment.
    """
    key, good = token(directory)
    output = directory / f"{name}.log"
    with output.open("wb") as sink:
        process = twistd(directory, sink, "towerbus-server", *options(key), *more, TOWERBUS_BUS=url, **variables)
    with ending(process, STOPS_WITHIN):
        yield Server(process, output, good)
