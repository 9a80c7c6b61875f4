"""Runs the real service as a real process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

STARTS_WITHIN = 20.0
STOPS_WITHIN = 20.0
TWISTD = str(Path(sys.executable).with_name("twistd"))
ANY_PORT = "tcp:0:interface=127.0.0.1"
"""Of the system's choice: what is looked up before may be taken after."""

_SOCKET = re.compile(r"^(wss?://\S+\?token=(\S+))$", re.MULTILINE)
_HTTP = re.compile(r"(https?://[^\s/'\"]+)")


@dataclass(frozen=True)
class Running:
    """A `twistd towerbus` that serves.

    Attributes:
        ws_url: Where clients connect, with the token in it.
        http_url: Where producers emit, without a path.
        token: The token for everything.
        process: The process.
        output: The file with all that it has printed and logged.
    """

    ws_url: str
    http_url: str
    token: str
    process: subprocess.Popen[bytes]
    output: Path


@contextmanager
def running_towerbus(directory: Path, *options: str) -> Iterator[Running]:
    """Start `twistd towerbus` on free ports, and stop it with SIGINT.

    Args:
        directory: Where it works and where its output goes.
        *options: More options for towerbus.

    Raises:
        AssertionError: It does not start or does not stop in time, or exits with an error.
    """
    output = directory / "twistd.log"
    with output.open("wb") as sink:
        process = twistd(directory, sink, "towerbus", "--listen", ANY_PORT, "--http", ANY_PORT, *options)
    try:
        yield _started(process, output)
        assert process.poll() is None, f"exited with {process.returncode} while it should serve:\n{_read(output)}"
        process.send_signal(signal.SIGINT)
        code = process.wait(STOPS_WITHIN)
        # twistd shuts down in order and then ends by the signal that it got.
        assert code in {0, -signal.SIGINT}, f"exited with {code}:\n{_read(output)}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def twistd(directory: Path, sink: BinaryIO, service: str, *options: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start one of our services.

    Args:
        directory: Where it works.
        sink: Where all goes that it prints and logs.
        service: Its name, such as `towerbus-server`.
        *options: Its options.
        **variables: More of its environment.
    """
    return subprocess.Popen(
        [TWISTD, "-n", "--pidfile=", service, *options],
        cwd=directory,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=subprocess.STDOUT,
    )


@contextmanager
def ending(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """End a service with the context, where it has not ended before; also one that was frozen."""
    try:
        yield
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            process.wait(seconds)
    finally:
        process.kill()
        process.wait()


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what configures towerbus, and with the variables given."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TOWERBUS_")} | variables


def wait_for(condition, seconds: float, what: str) -> None:
    """Wait until a condition holds.

    Args:
        condition: Called without arguments.
        seconds: How long, at the most.
        what: Names what was waited for when it did not come.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def finish(process: subprocess.Popen[str], seconds: float) -> tuple[int, str, str]:
    """Wait for a child to end, and kill one that does not.

    Returns:
        Exit code, standard output and standard error.
    """
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"still running after {seconds} s:\n{output}\n{errors}") from None
    return process.returncode, output, errors


def start(command: Sequence[str], directory: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a child with its output in pipes."""
    return subprocess.Popen(
        command,
        cwd=directory,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _started(process: subprocess.Popen[bytes], output: Path) -> Running:
    """Wait for the lines that it prints for whoever started it."""

    def printed():
        assert process.poll() is None, f"exited with {process.returncode}:\n{_read(output)}"
        text = _read(output)
        return _SOCKET.search(text) and _HTTP.search(text)

    wait_for(printed, STARTS_WITHIN, "the URLs")
    text = _read(output)
    url, token = _SOCKET.search(text).groups()
    return Running(url, _HTTP.search(text)[1], token, process, output)


def _read(path: Path) -> str:
    return path.read_text(errors="replace")
