"""The process of a private RabbitMQ node: its directory, its ports, its own port mapper (epmd), its life and its tools."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from support import rabbitmq_files
from support.certificates import Certificates
from support.kept import KeptDirectory
from support.ports import Ports

STARTS_WITHIN = 60.0
"""Seconds; 4 to 7 on an idle machine."""

STOPS_WITHIN = 30.0
"""Seconds; 1 to 6 on an idle machine."""

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Where Debian has RabbitMQ's own scripts. Those in /usr/sbin change the user and drop the environment."""

MISSING = "RabbitMQ is not installed: `make test` installs it as root; otherwise: sudo apt-get install rabbitmq-server"


class Node:
    """A node of RabbitMQ. `start` before all else, `close` at the end; as a context manager it does both.

    It blocks. In a test whose reactor must go on meanwhile: `await deferToThread(node.restart)`.

    Attributes:
        directory: Where its configuration, its data and its console are.
        name: The Erlang node's name.
        port: Where it listens for AMQP, on 127.0.0.1.
        management_port: Where it listens for the management's HTTP.
        tls_port: Where it listens for AMQP over TLS, if it does.
        certificates: The authority that it trusts and that its own certificate is of, if it listens for TLS.
    """

    def __init__(self, *, tls=None, plugins=(), config=None):
        """Say how the node is to be.

        Args:
            tls: None, `"server"`: a client may show a certificate, or `"mutual"`: it must.
            plugins: To enable beside the management and the consistent-hash exchange.
            config: More lines of rabbitmq.conf, by key.
        """
        assert tls in {None, "server", "mutual"}, tls
        self._tls, self._plugins, self._config = tls, tuple(plugins), dict(config or {})
        self._kept = self._epmd = self._vm = self.certificates = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason):
        self.close()

    def start(self):
        """Start the node and wait until it answers.

        Raises:
            AssertionError: It has ended, or did not answer in time; with the last lines of its console.
        """
        self.launch()
        self.await_ready()

    def launch(self):
        """Start the node without waiting for it."""
        assert not self.running, "it runs already"
        if self._kept is None:
            self._prepare()
        with self._console.open("ab") as sink:
            self._vm = self._spawn([str(SCRIPTS / "rabbitmq-server")], sink)

    def await_ready(self, seconds=STARTS_WITHIN):
        """Wait until the node answers on AMQP and HTTP; for its streams see `Broker.await_queues`."""
        until = time.monotonic() + seconds
        while not self._answers():
            assert self.running, f"RabbitMQ has ended with {self._vm.returncode}:\n{self.tail()}"
            assert time.monotonic() < until, f"RabbitMQ does not answer after {seconds} s:\n{self.tail()}"
            time.sleep(0.05)

    def stop(self):
        """Stop the node in order (SIGTERM)."""
        self.thaw()
        self._end(signal.SIGTERM)

    def kill(self):
        """End the node as a crash does (SIGKILL). What must come back: see `settle`."""
        self._end(signal.SIGKILL)

    def restart(self):
        """Stop in order, and start."""
        self.stop()
        self.start()

    def freeze(self):
        """Let the node hang (SIGSTOP): connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self):
        """Let a frozen node go on."""
        self._signal(signal.SIGCONT)

    def close(self):
        """End everything and remove the directory."""
        if self._kept is None:
            return
        self._kept.remove()
        for process in (self._vm, self._epmd):
            if process is not None:
                process.wait()
        self._ports.release()
        self._kept = None

    @property
    def running(self):
        """Whether there is a process; a frozen one counts."""
        return self._vm is not None and self._vm.poll() is None

    @property
    def pid(self):
        """The process; others may run below it."""
        return self._vm.pid

    @property
    def console(self):
        """All that it has printed and logged since the first start."""
        return self._console.read_text(errors="replace")

    def tail(self, lines=80):
        """The last lines of the console, for messages."""
        return "\n".join(self.console.splitlines()[-lines:])

    def api(self, method, path, body=None):
        """Ask the management API. Its counts are some seconds old: for those `queues` is better.

        Returns:
            What the answer's JSON says, or None when it is empty.

        Raises:
            AssertionError: The status is not 2xx.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.management_port, timeout=30)
        headers = {"Authorization": "Basic " + base64.b64encode(b"tb:tb").decode(), "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {text.decode(errors='replace')}"
        return json.loads(text) if text else None

    def evaluate(self, expressions):
        """Evaluate Erlang inside the node (10 ms), and return what it prints.

        Raises:
            AssertionError: It failed.
        """
        text = self._run(
            ["erl_call", "-R", "-n", self.name, "-timeout", "30", "-fetch_stdout", "-e"], f"{expressions}, ok.\n"
        )
        assert text.endswith("{ok, ok}"), f"{expressions}: {text}"
        return text.removesuffix("{ok, ok}")

    def ctl(self, *words):
        """Run rabbitmqctl, and return what it prints. It costs a second of CPU: see `evaluate`.

        Raises:
            AssertionError: It failed.
        """
        return self._run([str(SCRIPTS / "rabbitmqctl"), "--quiet", *words])

    def _prepare(self):
        assert (SCRIPTS / "rabbitmq-server").exists(), MISSING
        self._ports = Ports()
        self.port, dist, self.management_port, epmd, self.tls_port, *ctl = self._ports.numbers
        self.name = f"tb{self.port}@localhost"
        self._kept = KeptDirectory("towerbus-broker-")
        self.directory = self._kept.path
        self._console = self.directory / "console.log"
        config = rabbitmq_files.config(self.directory, self.port, self.management_port)
        if self._tls is not None:
            self.certificates = Certificates(self.directory / "tls")
            key, chain = self.certificates.issue("localhost", "127.0.0.1")
            config |= rabbitmq_files.tls(
                self.tls_port, self.certificates.authority, key, chain, mutual=self._tls == "mutual"
            )
        rabbitmq_files.write(self.directory, config | self._config, self._plugins)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_", "NOTIFY_"))}
        variables = rabbitmq_files.variables(self.directory, self.name, self.port, dist, epmd, ctl)
        self._environment = inherited | variables | self._kept.mark
        # Not left to the node, which starts one in passing and fails if it is not quick enough.
        self._epmd = self._spawn(["epmd", "-port", str(epmd), "-address", "127.0.0.1"], subprocess.DEVNULL)
        _await_port(epmd, self._epmd)

    def _spawn(self, command, sink):
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _run(self, command, given=""):
        done = subprocess.run(
            command, cwd=self.directory, env=self._environment, input=given, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _signal(self, number):
        if self.running:
            self._vm.send_signal(number)

    def _end(self, number):
        self._signal(number)
        try:
            self._vm.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"RabbitMQ has not stopped after {STOPS_WITHIN} s:\n{self.tail()}") from None

    def _answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                probe.sendall(b"AMQP\0\0\x09\x01")
                if probe.recv(1) != b"\x01":
                    return False
            return self.api("GET", "/api/whoami") is not None
        except (OSError, http.client.HTTPException):
            return False


def _await_port(port, process):
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert process.poll() is None, f"epmd has ended with {process.returncode}"
            assert time.monotonic() < until, f"nothing listens on port {port}"
            time.sleep(0.01)
        else:
            return
