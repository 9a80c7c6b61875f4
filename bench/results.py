"""What was measured, round by round: kept in a file to which further runs add their loads and servers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Figures, Load
from origin import Origin

RECORDED = {"load": dict, "machine": dict, "seconds": dict, "rounds": list, "faults": list}
"""What each file of results has."""
ORIGIN = {"dates": list, "commit": str, "versions": dict}
"""What older ones lack."""
ANEW = "measure without --add, or into another file (--json)"


class Refused(ValueError):
    """What was asked for can't be done, and nothing was measured; the text names the file and how to mend it."""


def read(file: Path) -> dict[str, Any]:
    """What a file of results has.

    Raises:
        Refused: If it can't be read, or has something else.
    """
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise Refused(f"there is no {file}: bench/run.py writes one (make bench)") from None
    except OSError as error:
        raise Refused(f"can't read {file}: {error.strerror}; name a file that bench/run.py has written") from None
    except (ValueError, RecursionError) as error:
        raise Refused(
            f"{file} is no JSON ({error}): name another file, or have bench/run.py write this one anew, without --add"
        ) from None
    if not _is_of_a_run(content):
        raise Refused(f"{file} has no results of bench/run.py: name a file that it has written (--json)")
    return dict(content)


def figures(content: Mapping[str, Any]) -> list[dict[str, Figures]]:
    """The rounds of what `read` returned."""
    return [{name: Figures(values) for name, values in each.items()} for each in content["rounds"]]


def _is_of_a_run(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and all(isinstance(content.get(key), kind) for key, kind in RECORDED.items())
        and all(isinstance(content.get(key, kind()), kind) for key, kind in ORIGIN.items())
        and all(isinstance(each, dict) for each in [*content["rounds"], *content.get("versions", {}).values()])
        and all(isinstance(each, str) for each in content.get("dates", []))
        and all(
            _are_numbers(each) for each in [content["seconds"], *(v for r in content["rounds"] for v in r.values())]
        )
    )


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, int | float) for value in values.values())


def _differences(before: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {before.get(key, 'none')} (now {ours.get(key, 'none')})"
        for key in {**before, **ours}
        if before.get(key) != ours.get(key)
    )


class Results:
    """The figures of one or several runs of the same commit on the same machine with the same sizes.

    Args:
        load: The sizes.
        origin: Where they come from.

    Attributes:
        rounds: By round and server; a run's first round goes with the first of those before.
        seconds: What each load took in all.
    """

    def __init__(self, load: Load, origin: Origin) -> None:
        self.load, self.origin = load, origin
        self.rounds: list[dict[str, Figures]] = []
        self.seconds: dict[str, float] = {}
        self.faults: list[str] = []

    def add_file(self, file: Path) -> None:
        """Take over what a run before has left.

        Raises:
            Refused: If it is no file of results, or another commit, machine, sizes or versions were measured.
        """
        before = read(file)
        if lacking := ", ".join(key for key in ORIGIN if key not in before):
            raise Refused(f"{file} is of an older bench/run.py, which did not record {lacking}: {ANEW}")
        earlier = Origin.recorded(before)
        pairs = [
            ("another load", before["load"], asdict(self.load)),
            ("another commit", {"commit": earlier.commit}, {"commit": self.origin.commit}),
            ("another machine", earlier.machine, self.origin.machine),
        ]
        pairs += [
            (f"other versions of {name}", versions, self.origin.versions[name])
            for name, versions in earlier.versions.items()
            if name in self.origin.versions
        ]
        for what, theirs, ours in pairs:
            if found := _differences(theirs, ours):
                raise Refused(f"{file} is of {what}: {found}; {ANEW}")
        self.origin = self.origin.after(earlier)
        self.rounds = figures(before)
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
        measured = {name for each in self.rounds for name in each}
        content = {
            "dates": self.origin.dates,
            "commit": self.origin.commit,
            "load": asdict(self.load),
            "machine": self.origin.machine,
            "versions": {name: found for name, found in self.origin.versions.items() if name in measured},
            "seconds": self.seconds,
            "rounds": [{name: each[name].values for name in each} for each in self.rounds],
            "faults": self.faults,
            "goals": judged,
        }
        file.write_text(json.dumps(content, indent=1))
