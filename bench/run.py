"""Measure what a delivered event costs towerbus, beside other servers under the same load. README.md says how."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import measure
import report
from measure import Figures, Load
from peers import PEERS
from processes import Disturbance

HERE = Path(__file__).resolve().parent
QUICK = {"clients": 300, "events": 100, "rounds": 1, "idle": 1000}
FULL = {"clients": 1000, "events": 400, "rounds": 3, "idle": 2500}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help="which, separated by commas [all: %(default)s]")
    parser.add_argument("--clients", type=int, help=f"clients that get the events [{FULL['clients']}]")
    parser.add_argument(
        "--events", type=int, help=f"events one by one, in each round; slow servers get fewer [{FULL['events']}]"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds; the servers take turns in each [{FULL['rounds']}]")
    parser.add_argument("--idle", type=int, help=f"idle clients; 0: leave memory and handshakes out [{FULL['idle']}]")
    parser.add_argument("--quick", action="store_true", help=f"a first look: {QUICK}")
    parser.add_argument("--deliveries", type=int, metavar="N", help="instead: N deliveries by towerbus, each checked")
    parser.add_argument("--strict", action="store_true", help="a missed goal is a failure, too")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="file for all figures [%(default)s]")
    options = parser.parse_args(argv)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.peers = options.peers.split(",")
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"--peers: there is no {name!r}; there are {', '.join(PEERS)}")
    return options


def installed(names: Sequence[str]) -> list[str]:
    """Those of the peers that can be started; says what the others want."""
    there = []
    for name in names:
        if wanted := PEERS[name].missing():
            print(f"skipped: {PEERS[name].title} needs {wanted}", file=sys.stderr)
        else:
            there.append(name)
    return there


def one(name: str, load: Load) -> Figures:
    """All figures of one server in one round; a server that fails is a fault and does not end the others' turns."""
    figures, disturbance = Figures(), Disturbance()
    try:
        figures = measure.deliveries(PEERS[name], load)
        if load.idle:
            figures.values |= measure.connections(PEERS[name], load).values
    except (RuntimeError, OSError) as error:
        figures.faults.append(str(error))
    figures.values["others_percent"] = disturbance.share() * 100
    return figures


def compare(options: argparse.Namespace) -> bool:
    """Measure all servers in turns. Returns whether nothing was lost, repeated, out of order or damaged."""
    load = Load(options.clients, options.events, options.idle)
    names = installed(options.peers)
    rounds: list[dict[str, Figures]] = []
    for number in range(1, options.rounds + 1):
        rounds.append({})
        for name in names:
            started = time.monotonic()
            figures = rounds[-1][name] = one(name, load)
            said = " ".join(f"{key}={figures.values.get(key, 0):.2f}" for key, _, _ in report.COLUMNS)
            print(f"round {number} {name} ({time.monotonic() - started:.0f} s): {said}", file=sys.stderr)
    faults = [
        f"round {i} {name}: {fault}" for i, each in enumerate(rounds, 1) for name in each for fault in each[name].faults
    ]
    judged = report.goals(rounds)
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    options.json.write_text(
        json.dumps(
            {
                "load": vars(load),
                "machine": machine,
                "rounds": [{name: each[name].values for name in each} for each in rounds],
                "faults": faults,
                "goals": [{"goal": text, "met": met} for text, met in judged],
            },
            indent=1,
        )
    )
    print(f"\n{load.clients} clients, 300-byte events, medians of {options.rounds} rounds, {machine}\n")
    print(report.table(rounds), "\n\n" + report.ranges(rounds), sep="")
    print("\ngoals:", *(f"  {'met   ' if met else 'MISSED'} {text}" for text, met in judged), sep="\n")
    print("\nfaults:", *(f"  {fault}" for fault in faults or ["none"]), sep="\n")
    return not faults and (not options.strict or all(met for _, met in judged))


def truth(options: argparse.Namespace) -> bool:
    """Deliver a great many events with towerbus. Returns whether all was well."""
    started = time.monotonic()
    done, cpu, faults = measure.truth(PEERS[report.OURS], options.clients, options.deliveries)
    print(f"{done:,} deliveries to {options.clients} clients in {time.monotonic() - started:.0f} s, {cpu:.1f} s CPU")
    print("faults:", *(f"  {fault}" for fault in faults or ["none"]), sep="\n")
    return not faults and done >= options.deliveries


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    return 0 if (truth if options.deliveries else compare)(options) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
