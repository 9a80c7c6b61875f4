"""What a peer is, and what all of them use."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import Process

from peers.language import Word, options

HERE = Path(__file__).resolve().parent.parent
SERVERS = HERE / "servers"
PYTHON_HOME, NODE_HOME = HERE / ".venv-peers", HERE / ".node-peers"
"""Where the peers' Python and Node packages are installed."""
SIZE = 300
"""Bytes of an event's text, where a load does not say otherwise."""
DEFLATE: Mapping[str, Word] = {"deflate": True, "job_events": True}
"""What the load generator does otherwise where compression is the load: it offers it, and the texts are job events."""
LOADS = frozenset({"topic", "pace", "day", "navigation", "storm", "slow", "idle", "topics"})
"""What most servers are asked to bear; `loads.py` has them."""
MANY = frozenset({"many"})
"""What only those bear that are compared with very many clients."""


@dataclass(frozen=True)
class Running:
    """A server that is up.

    Attributes:
        server: The processes whose CPU and memory are the server's.
        beside: Others that take part, by name; their CPU is reported apart.
        within: Some of `server`, by name, whose CPU is reported apart, too.
        load: What the load generator has to know of it.
        holding: Those of `server` in which a connected client takes memory; none given: all of them.
        sized: What of that depends on the size of an event.
    """

    server: Sequence[Process]
    load: Mapping[str, Word]
    beside: dict[str, Process] = field(default_factory=dict)
    within: Mapping[str, Process] = field(default_factory=dict)
    holding: Sequence[Process] = ()
    sized: Callable[[int], Mapping[str, Word]] = field(default=lambda _: {})

    def options(self, size: int, repeat: int) -> list[str]:
        """The load generator's command line.

        Args:
            size: Bytes of an event's text.
            repeat: How many own topics a client has, where it has any.
        """
        return options({**self.load, **self.sized(size), "size": size, "repeat": repeat})

    def cpu_seconds(self) -> float:
        """CPU time of the server so far."""
        return sum(process.cpu_seconds() for process in self.server)

    def kb(self) -> int:
        """Memory of what holds its clients."""
        return sum(process.kb() for process in self.holding or self.server)

    def begin_peak(self) -> None:
        """Forget how much memory the server has had at the most."""
        for process in self.server:
            process.begin_peak()

    def peak_kb(self) -> int:
        """The most memory that it has had since `begin_peak`, each of its processes for itself."""
        return sum(process.peak_kb() for process in self.server)

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
        versions: Says what it consists of, in which versions (`versions.py`); asked when all of it is installed.
        missing: Says what has to be installed; an empty text if nothing.
        events: Which part of the events it gets; slow servers get few.
        loads: The loads that it can bear, or that make sense; `deflate` follows from `ways`.
        ways: By load, how it is started where a load wants it otherwise: compressing, or for clients that resume.
    """

    name: str
    title: str
    start: Callable[[Path], Running]
    versions: Callable[[], Mapping[str, str]] = field(kw_only=True)
    missing: Callable[[], str] = str
    events: float = 1.0
    loads: frozenset[str] = LOADS
    ways: Mapping[str, Callable[[Path], Running]] = field(default_factory=dict)

    def bears(self, load: str) -> bool:
        """Whether it is measured in a load."""
        return load in self.loads or (load == "deflate" and load in self.ways)

    def resumes(self) -> bool:
        """Whether clients that come back in the load `storm` get what they missed."""
        return "storm" in self.ways


def peers_python() -> str:
    """The interpreter of the peers' own environment, made when it is first needed."""
    environment, wanted = PYTHON_HOME, HERE / "peers-requirements.txt"
    if _is_due(environment, wanted):
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", wanted], check=True)
        (environment / "made").touch()
    return str(environment / "bin" / "python")


def node_modules() -> Path:
    """The Node packages of the peers, installed when they are first needed."""
    environment, wanted = NODE_HOME, HERE / "peers-package.json"
    if _is_due(environment, wanted):
        environment.mkdir(exist_ok=True)
        shutil.copy(wanted, environment / "package.json")
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=environment, check=True)
        (environment / "made").touch()
    return environment / "node_modules"


def python_missing() -> str:
    """What is missing where the peers' Python packages can't be installed."""
    try:
        peers_python()
    except (subprocess.CalledProcessError, OSError) as error:
        return f"the Python packages of {HERE.name}/peers-requirements.txt, and installing them failed: {error}"
    return ""


def node_missing() -> str:
    """What is missing to run Node's servers."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "Node (apt-get install nodejs npm)"
    try:
        node_modules()
    except (subprocess.CalledProcessError, OSError) as error:
        return f"the Node packages of {HERE.name}/peers-package.json, and installing them failed: {error}"
    return ""


def _is_due(environment: Path, wanted: Path) -> bool:
    made = environment / "made"
    due = not made.exists() or made.stat().st_mtime < wanted.stat().st_mtime
    if due:
        print(f"making {environment.name} ...", file=sys.stderr)
    return due
