"""The load generator, load/*.c: compiled when needed, told what to do by lines."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"
FLAGS = ("-O2", "-Wall", "-Wextra")
PATIENCE = 900.0
"""Seconds for one command; the generator itself gives up after 30 seconds without progress."""


def compiled(source: Path) -> Path:
    """Compile a C file, or all in a directory, where one is newer than what was compiled of it."""
    BUILD.mkdir(exist_ok=True)
    program = BUILD / source.stem
    files = sorted(source.glob("*.[ch]")) if source.is_dir() else [source]
    if not program.exists() or program.stat().st_mtime < max(each.stat().st_mtime for each in files):
        sources = [each for each in files if each.suffix == ".c"]
        subprocess.run(["cc", *FLAGS, "-o", program, *sources, "-lz"], check=True)
    return program


class Generator:
    """One running load generator; a context manager.

    Args:
        options: What it needs to know of the server: the command line of load/main.c.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._popen = subprocess.Popen(
            [compiled(HERE / "load"), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, line: str) -> dict[str, Any]:
        """Have a command carried out."""
        told, answers = self._popen.stdin, self._popen.stdout
        if told is None or answers is None:
            raise AssertionError
        told.write(line.encode() + b"\n")
        told.flush()
        if not select.select([answers], [], [], PATIENCE)[0]:
            raise RuntimeError(f"no answer to {line!r} after {PATIENCE} s")
        answer = answers.readline()
        if not answer:
            raise RuntimeError(f"the load generator ended during {line!r}")
        return dict(json.loads(answer))

    def connect(self, clients: int, kind: str = "topic", topics: int = 0) -> None:
        """Have that many clients, greeted by the server.

        Args:
            clients: All, with those that are there already.
            kind: What the new ones want: `topic`, `own` or `idle` (load/main.c).
            topics: How many there are for clients to have as their own; 0 for a different one each.
        """
        self._all_there(self.ask(f"connect {clients} {kind} {topics}"), clients)

    def subscribe(self, clients: int, kind: str = "topic", topics: int = 0) -> None:
        """Have all subscribed that are not; see `connect`."""
        self._all_there(self.ask(f"subscribe {kind} {topics}"), clients)

    def _all_there(self, answer: dict[str, Any], clients: int) -> None:
        if answer["clients"] != clients or answer["waiting"] or answer["gone"] or answer["damaged"]:
            raise RuntimeError(f"wanted {clients} clients: {answer}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.communicate()
