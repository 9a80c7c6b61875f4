"""Start and stop servers, and read what they cost: CPU time and memory of a process and all below it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CPUCLOCK_SCHED = 2
"""The kernel's number for the clock that counts a process's time on a CPU, user and system, in nanoseconds."""
START_PATIENCE = 20.0
"""Seconds for a server to come up."""
STOP_PATIENCE = 10.0
"""Seconds for a server to go after SIGTERM."""


def cpu_seconds(pid: int) -> float:
    """CPU time of one process, all its threads, also those that have ended (clock_getcpuclockid(3), by hand)."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def proportional_kb(pid: int) -> int:
    """Memory of one process, shared pages divided among those that share them (PSS), in KB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise LookupError(f"no Pss of {pid}")


def begin_peak(pid: int) -> None:
    """Forget how much memory one process has had at the most."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_kb(pid: int) -> int:
    """The most memory that one process has had at any moment since `begin_peak`, shared pages too (RSS), in KB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise LookupError(f"no VmHWM of {pid}")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found.extend(children.get(each, []))
    return found


class Disturbance:
    """How busy all others keep the machine while we measure."""

    def __init__(self) -> None:
        self._start = self._times()

    def share(self) -> float:
        """What others have used of all CPUs since the start: 0 to 1. Our own count once they have ended."""
        busy, ours, idle = (now - then for now, then in zip(self._times(), self._start, strict=True))
        return max(0.0, busy - ours) / max(busy + idle, 1e-9)

    def _times(self) -> tuple[float, float, float]:
        """Seconds so far: all CPUs busy (a guest's stolen time included), we and what we have reaped, all CPUs idle."""
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        per_second = os.sysconf("SC_CLK_TCK")
        idle = ticks[3] + ticks[4]
        return (sum(ticks) - idle) / per_second, sum(os.times()[:4]), idle / per_second


def free_port() -> int:
    """A TCP port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """One started program.

    Args:
        command: Program and arguments.
        directory: Where it runs and where its output is kept.
        name: Of the file with its output.
        environment: On top of ours.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, name: str, environment: dict[str, str] | None = None
    ) -> None:
        self.output = directory / f"{name}.out"
        with self.output.open("wb") as out:
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def cpu_seconds(self) -> float:
        """CPU time of the process and its descendants."""
        return sum(cpu_seconds(pid) for pid in family(self._popen.pid))

    def kb(self) -> int:
        """Memory of the process and its descendants."""
        return sum(proportional_kb(pid) for pid in family(self._popen.pid))

    def begin_peak(self) -> None:
        """Forget how much memory it and its descendants have had at the most."""
        for pid in family(self._popen.pid):
            begin_peak(pid)

    def peak_kb(self) -> int:
        """The most memory that they have had since `begin_peak`, each for itself."""
        return sum(peak_kb(pid) for pid in family(self._popen.pid))

    def said(self) -> str:
        """What it has written so far."""
        return self.output.read_text(errors="replace")

    def wait_for_port(self, port: int) -> None:
        """Wait until it listens."""
        for _ in self._tries(f"listening on {port}"):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return

    def wait_for_word(self, word: str) -> str:
        """Wait until it has written a word; returns the word with what follows it on the line, up to a space."""
        for _ in self._tries(f"writing {word}"):
            for line in self.said().splitlines(keepends=True):
                if word in line and line.endswith("\n"):
                    return line[line.index(word) :].split()[0]
        raise AssertionError

    def _tries(self, what: str) -> Iterator[None]:
        end = time.monotonic() + START_PATIENCE
        while time.monotonic() < end and self._popen.poll() is None:
            yield
            time.sleep(0.05)
        raise RuntimeError(f"{self._popen.args} is not {what} after {START_PATIENCE} s:\n{self.said()[-2000:]}")

    def stop(self) -> None:
        """End it and its descendants."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGTERM)
        try:
            self._popen.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait(STOP_PATIENCE)
