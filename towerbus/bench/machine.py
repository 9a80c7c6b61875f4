"""What processes on this machine cost: who listens on a port, CPU time, memory. Linux."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from towerbus.errors import ConfigError

BROKER = "broker"
"""Processes whose name begins so are counted apart."""
_CPUCLOCK_SCHED = 2
"""The kernel's number for the clock that counts a process's time on a CPU, user and system, in nanoseconds."""
_LISTEN = "0A"
_PROC = Path("/proc")


class Watched(NamedTuple):
    """Processes that are one part of the system under test.

    Attributes:
        name: What it is called.
        pids: The processes; those that descend from them count too.
    """

    name: str
    pids: tuple[int, ...]

    @property
    def broker(self) -> bool:
        """Whether it is counted apart."""
        return self.name.startswith(BROKER)


class Cost(NamedTuple):
    """What a part has cost so far.

    Attributes:
        cpu: Seconds on a CPU, user and system, all threads.
        memory: Bytes, those that are shared divided among those that share them; None where we may not look.
    """

    cpu: float
    memory: int | None


def watched(given: Sequence[str], ports: Iterable[tuple[str, str, int]]) -> list[Watched]:
    """Find the processes of the system under test.

    Args:
        given: `NAME=PID`; where there is one of a name already, it is one part with it.
        ports: Names of parts, with host and port: who listens there, if that is on this machine.

    Raises:
        ConfigError: What is given is not of that form, there is no such process, or it is given or would be counted
            twice.
    """
    found: dict[str, set[int]] = {}
    for each in given:
        name, _, text = each.partition("=")
        if not name or not text.isascii() or not text.isdigit():
            raise ConfigError(f"--pid: got {each!r}; wanted is NAME=PID, such as worker=4711")
        if not (_PROC / text).exists():
            raise ConfigError(f"--pid: got {each!r}; there is no process {text} on this machine")
        if int(text) in found.get(name, ()):
            raise ConfigError(f"--pid: {each!r} is given twice")
        found.setdefault(name, set()).add(int(text))
    families = {name: {one for pid in pids for one in _family(pid)} for name, pids in found.items()}
    _check_apart(families)
    known = set().union(*families.values())
    for name, host, port in ports:
        pids = listening(port) - known if is_here(host) else set()
        known |= pids
        if pids:
            found.setdefault(name, set()).update(pids)
    return [Watched(name, tuple(sorted(pids))) for name, pids in found.items()]


def _check_apart(families: Mapping[str, set[int]]) -> None:
    """A process and all that descend from it are one part: no part may have another in it, nor the bench."""
    for name, pids in families.items():
        if os.getpid() in pids:
            raise ConfigError(
                f"--pid: {name} has the bench itself in it, which descends from it: give the server's own process"
            )
        for other, theirs in families.items():
            if other < name and pids & theirs:
                both = ", ".join(map(str, sorted(pids & theirs)))
                raise ConfigError(f"--pid: {other} and {name} have processes in common ({both}): give them one name")


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
        ip = ipaddress.ip_address(str(address).partition("%")[0])
    except (OSError, ValueError):
        return False
    if ip.is_loopback:
        return True
    with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:  # noqa: PLR2004
        try:
            probe.bind((str(ip), 0))
        except OSError:
            return False
    return True


def listening(port: int) -> set[int]:
    """The processes that listen on a TCP port; without those that only inherited the socket from one of them."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{words[9]}]")
    pids = {pid for pid in _all() if sockets and sockets & _open(pid)}
    parents = _parents()
    return {pid for pid in pids if parents.get(pid) not in pids}


def cost(part: Watched) -> Cost:
    """What a part has cost so far."""
    pids = {pid for first in part.pids for pid in _family(first)}
    sizes = [_memory(pid) for pid in pids]
    known = [size for size in sizes if size is not None]
    return Cost(sum(_cpu(pid) for pid in pids), sum(known) if known else None)


def _cpu(pid: int) -> float:
    """As clock_getcpuclockid(3) has it; 0 where the process is gone."""
    with contextlib.suppress(OSError):
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    return 0.0


def _memory(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None


def _all() -> list[int]:
    return [int(entry) for entry in os.listdir(_PROC) if entry.isdigit()]  # noqa: PTH208 - a name is all that is wanted


def _open(pid: int) -> set[str]:
    """What a process has open, as far as we may look."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def _parents() -> dict[int, int]:
    found = {}
    for pid in _all():
        with contextlib.suppress(OSError):
            found[pid] = int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for each in found:
        found.extend(children.get(each, []))
    return found
