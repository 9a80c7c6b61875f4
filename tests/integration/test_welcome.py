"""The printed lines, pasted: with Unix sockets, sockets of systemd's, TLS and IPv6."""

import json
import os
import shlex
import signal
import socket
import subprocess
from contextlib import contextmanager

import pytest
import trustme
from support.running import TWISTD, environment, running_towerbus, wait_for


@contextmanager
def started(directory, *options, before=(), pass_fds=()):
    """A `twistd towerbus` that serves, and the lines that it printed."""
    output = directory / "twistd.log"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [*before, TWISTD, "-n", "--pidfile=", "towerbus", *options],
            cwd=directory, env=environment(), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, pass_fds=pass_fds,
        )  # fmt: skip

    def printed():
        lines = output.read_text().splitlines()
        start = next((at for at, line in enumerate(lines) if line.startswith(("ws:", "# WebSocket: "))), len(lines))
        return lines[start : start + 3]

    try:
        wait_for(lambda: len(printed()) == 3 or process.poll() is not None, 20, "the lines")
        assert process.poll() is None, output.read_text()
        yield printed()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()


def pasted(line, directory, **variables):
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=30, cwd=directory, env=environment(**variables)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_unix_sockets(tmp_path):
    with started(tmp_path, "--listen", "unix:ws.sock", "--http", "unix:it's.sock") as (websocket, _, curl):
        assert f"on the Unix socket {tmp_path}/ws.sock" in websocket
        assert json.loads(pasted(curl, "/")) == {"accepted": 1}
    assert not (tmp_path / "ws.sock").exists()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_sockets_of_systemds(family, tmp_path):
    path = str(tmp_path / "http.sock")
    with socket.socket(family) as ws, socket.socket(family) as http:
        ws.bind(str(tmp_path / "ws.sock") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        http.bind(path if family == socket.AF_UNIX else ("127.0.0.1", 0))
        for each in (ws, http):
            each.listen()
        script = (
            'a=$1 b=$2; shift 2; eval "exec 3<&$a 4<&$b"; LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=ws:http exec "$@"'
        )
        # High numbers, so that 3 and 4 are free to be taken.
        fds = [os.dup2(each.fileno(), number) for each, number in ((ws, 103), (http, 104))]
        try:
            domain = "UNIX" if family == socket.AF_UNIX else "INET"
            options = ["--listen", f"systemd:domain={domain}:name=ws", "--http", f"systemd:domain={domain}:name=http"]
            before = ["bash", "-c", script, "bash", *map(str, fds)]
            with started(tmp_path, *options, before=before, pass_fds=fds) as printed:
                if family == socket.AF_UNIX:
                    assert f"--unix-socket {path} " in printed[2]
                    assert json.loads(pasted(printed[2], "/")) == {"accepted": 1}
                else:
                    assert printed[0].startswith(f"ws://127.0.0.1:{ws.getsockname()[1]}/websocket/?token=")
                    assert pasted(printed[2], tmp_path).strip()
        finally:
            for fd in fds:
                os.close(fd)


@pytest.mark.parametrize("kind", ["ssl", "tcp6"])
def test_the_lines_work_over_tls_and_ipv6(kind, tmp_path):
    authority, roots = trustme.CA(), str(tmp_path / "roots.pem")
    authority.cert_pem.write_to_path(roots)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    endpoint = "ssl:0:interface=127.0.0.1:privateKey=both.pem:certKey=both.pem" if kind == "ssl" else "tcp6:0"
    with running_towerbus(tmp_path, "--listen", endpoint, "--http", endpoint) as bus:
        lines = bus.output.read_text().splitlines()
        at = next(number for number, line in enumerate(lines) if line == bus.ws_url)
        assert bus.ws_url.startswith("wss://127.0.0.1:" if kind == "ssl" else "ws://[::1]:")
        watching = subprocess.Popen(
            [*shlex.split(lines[at + 1]), "--count", "1"],
            stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(SSL_CERT_FILE=roots),
        )  # fmt: skip

        def seen():
            # Until the watcher has subscribed, what is emitted is not its business.
            pasted(lines[at + 2], tmp_path, SSL_CERT_FILE=roots)
            return watching.poll() is not None

        try:
            wait_for(seen, 20, "the event")
            assert json.loads(watching.stdout.read())["status"] == "running"
        finally:
            watching.kill()
            watching.wait()
            watching.stdout.close()
