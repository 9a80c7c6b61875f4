"""What a peer is, and what all of them use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import Process

HERE = Path(__file__).resolve().parent.parent
SERVERS = HERE / "servers"
FIRST = '{"groups":{"jobs":["status_changed"]}}'
"""The message with which a client of Tower's protocol subscribes."""


@dataclass(frozen=True)
class Running:
    """A server that is up.

    Attributes:
        server: The processes whose CPU and memory are the server's.
        beside: Others that take part, by name; their CPU is reported apart.
        load: Options of the load generator.
    """

    server: Sequence[Process]
    load: Sequence[str]
    beside: dict[str, Process] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        """CPU time of the server so far."""
        return sum(process.cpu_seconds() for process in self.server)

    def kb(self) -> int:
        """Memory of the server."""
        return sum(process.kb() for process in self.server)

    def stop(self) -> None:
        """End all."""
        for process in (*self.server, *self.beside.values()):
            process.stop()


@dataclass(frozen=True)
class Peer:
    """One kind of server.

    Attributes:
        name: On the command line.
        title: In the table.
        start: Starts it; gets a directory of its own.
        missing: Says what has to be installed; an empty text if nothing.
        events: Which part of the events it gets; slow servers get few.
    """

    name: str
    title: str
    start: Callable[[Path], Running]
    missing: Callable[[], str] = str
    events: float = 1.0


def peers_python() -> str:
    """The interpreter of the peers' own environment, made when it is first needed."""
    environment, wanted = HERE / ".venv-peers", HERE / "peers-requirements.txt"
    made = environment / "made"
    if not made.exists() or made.stat().st_mtime < wanted.stat().st_mtime:
        print("making the peers' environment ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", wanted], check=True)
        made.touch()
    return str(environment / "bin" / "python")
