"""Finding out which versions a peer consists of. What can't be found out is "not known", and hinders no measurement."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import distributions
from pathlib import Path

from peers.peer import NODE_HOME, PYTHON_HOME

NOT_KNOWN = "not known"
PATIENCE = 10.0
"""Seconds for a program to say its version."""
VERSION = re.compile(r"(?:^|[\s(/=v])(\d+(?:\.\d+)+[^\s,)]*)")
"""In a program's answer; not the one in `libpython3.11.so.1.0`, which it may be missing."""


def of_ours(*packages: str) -> dict[str, str]:
    """Of Python packages in the project's own environment."""
    return _distributed(packages, sys.path)


def of_python(*packages: str) -> dict[str, str]:
    """Of Python packages in the peers' own environment, and of its Python."""
    path = [str(each) for each in PYTHON_HOME.glob("lib/python3*/site-packages")]
    return {"python": said(str(PYTHON_HOME / "bin" / "python"), "--version"), **_distributed(packages, path)}


def of_node(*packages: str) -> dict[str, str]:
    """Of Node packages, and of Node."""
    return {"node": said("node", "--version")} | {
        package: _packaged(NODE_HOME / "node_modules" / package / "package.json") for package in packages
    }


def of_debian(*packages: str) -> dict[str, str]:
    """Of Debian packages; for what can't say its own version, or only slowly."""
    found = {}
    for package in packages:
        line = first_line("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package)
        found[package] = line.removeprefix("installed ") if line.startswith("installed ") else NOT_KNOWN
    return found


def said(*command: str) -> str:
    """The version that a program says it has in the first line of its answer."""
    found = VERSION.search(first_line(*command))
    return found[1] if found else NOT_KNOWN


def first_line(*command: str) -> str:
    """The first line of a program's answer, whatever it exits with: `mosquitto -h` says 3."""
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.decode(errors="replace").partition("\n")[0].strip()


def _distributed(packages: Iterable[str], path: Sequence[str]) -> dict[str, str]:
    return {
        package: next((each.version for each in distributions(name=package, path=list(path))), None) or NOT_KNOWN
        for package in packages
    }


def _packaged(file: Path) -> str:
    try:
        return str(json.loads(file.read_bytes())["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return NOT_KNOWN
