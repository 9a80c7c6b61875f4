"""What was measured, round by round: kept in a file to which further runs add their loads and servers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Figures, Load


class Results:
    """The figures of one or several runs on the same machine with the same sizes.

    Args:
        load: The sizes.
        machine: What it ran on.

    Attributes:
        rounds: By round and server; a run's first round goes with the first of those before.
        seconds: What each load took in all.
    """

    def __init__(self, load: Load, machine: Mapping[str, Any]) -> None:
        self.load, self.machine = load, machine
        self.rounds: list[dict[str, Figures]] = []
        self.seconds: dict[str, float] = {}
        self.faults: list[str] = []

    def add_file(self, file: Path) -> None:
        """Take over what a run before has left.

        Raises:
            ValueError: If it ran on another machine, or with other sizes.
        """
        before = json.loads(file.read_text())
        for what, ours in (("load", asdict(self.load)), ("machine", dict(self.machine))):
            if before[what] != ours:
                raise ValueError(f"{file} is of another {what}: {before[what]}, this run's is {ours}")
        self.rounds = [{name: Figures(values) for name, values in each.items()} for each in before["rounds"]]
        self.seconds = before["seconds"]
        self.faults = before["faults"]

    def add(self, number: int, kind: str, found: Mapping[str, Figures], seconds: float) -> None:
        """Add what one load came to in one round; what another run had of the same servers is replaced.

        Args:
            number: Of the round, from 0 on.
            kind: The load.
            found: By server.
            seconds: What it took.
        """
        while len(self.rounds) <= number:
            self.rounds.append({})
        for name, figures in found.items():
            self.rounds[number].setdefault(name, Figures()).values.update(figures.values)
            self.faults += [f"round {number + 1} {name}: {kind}: {fault}" for fault in figures.faults]
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    def write(self, file: Path, judged: Sequence[Mapping[str, Any]]) -> None:
        """Write all of it, with what became of the goals."""
        content = {
            "load": asdict(self.load),
            "machine": self.machine,
            "seconds": self.seconds,
            "rounds": [{name: each[name].values for name in each} for each in self.rounds],
            "faults": self.faults,
            "goals": judged,
        }
        file.write_text(json.dumps(content, indent=1))
