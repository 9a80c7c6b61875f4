"""Where figures come from: when they were measured, of which commit, on which machine, of which versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from peers import PEERS
from peers.versions import NOT_KNOWN, of_ours

TOP = Path(__file__).resolve().parent.parent
CPUINFO = Path("/proc/cpuinfo")
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Origin:
    """What the figures of one or several runs depend on that is no matter of sizes.

    Attributes:
        dates: When each run began: UTC, ISO 8601; the first run's first.
        commit: Of towerbus.
        machine: What it ran on.
        versions: By server and by what that consists of.
    """

    dates: Sequence[str]
    commit: str
    machine: Mapping[str, Any]
    versions: Mapping[str, Mapping[str, str]]

    @classmethod
    def now(cls, names: Sequence[str]) -> Self:
        """That of a run of these servers that begins now, here."""
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls([date], commit(), machine(), {name: dict(PEERS[name].versions()) for name in names})

    @classmethod
    def recorded(cls, content: Mapping[str, Any]) -> Self:
        """What a file of results says of it; an older one says less."""
        versions = content.get("versions", {})
        return cls(content.get("dates", []), content.get("commit", NOT_RECORDED), content["machine"], versions)

    def after(self, earlier: Origin) -> Origin:
        """That of this run together with those before, of the same commit on the same machine."""
        return replace(self, dates=[*earlier.dates, *self.dates], versions={**earlier.versions, **self.versions})

    def when(self) -> str:
        """The dates and the commit, in a line."""
        first, *more = self.dates or [NOT_RECORDED]
        added = f", added to {', '.join(more)}" if more else ""
        return f"date {first}{added}; commit {self.commit}"

    def where(self) -> str:
        """The machine, in a line."""
        on = {key: self.machine.get(key, NOT_RECORDED) for key in ("cpu", "cpus", "kernel", "python", "send_loop")}
        return (
            f"{on['cpus']} CPUs (model {on['cpu']}), Linux {on['kernel']}, Python {on['python']}, "
            f"our send loop in {on['send_loop']}"
        )

    def consisting(self) -> Iterator[str]:
        """The versions, a server a line."""
        for name in (*PEERS, *(name for name in self.versions if name not in PEERS)):
            if found := self.versions.get(name):
                title = PEERS[name].title if name in PEERS else name
                yield f"- {title}: {', '.join(f'{what} {version}' for what, version in found.items())}"
        if not self.versions:
            yield f"- versions {NOT_RECORDED}"


def machine() -> dict[str, object]:
    """The machine, and what runs on it."""
    # Not above: a summary takes no towerbus.
    from towerbus.wire.eager import COMPILED

    return {
        "cpu": cpu(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "send_loop": "C" if COMPILED else "Python",
    }


def cpu() -> str:
    """The CPU's model; not every kernel knows its name."""
    lines = CPUINFO.read_text(errors="replace").splitlines() if CPUINFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), NOT_KNOWN)


def commit() -> str:
    """The commit of the checkout, and whether files differ from it; towerbus's version where it is no checkout."""
    try:
        changes = "+changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
        return f"{_git('rev-parse', '--short=12', 'HEAD')}{changes}"
    except (OSError, subprocess.CalledProcessError):
        return f"none (towerbus {of_ours('towerbus')['towerbus']})"


def _git(*words: str) -> str:
    # No lock on the index: somebody may be committing.
    command = ["git", "--no-optional-locks", f"--git-dir={TOP / '.git'}", f"--work-tree={TOP}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
