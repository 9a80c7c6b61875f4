"""Measure what a delivered event costs towerbus, beside other servers under the same load. README.md says how."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import goals
import measure
import plot
import report
from loads import KINDS, Kind
from measure import FIRST_CLIENTS, MOST_CLIENTS, Figures, Load
from origin import Origin
from peers import PEERS
from peers.peer import SIZE
from processes import Disturbance
from results import Refused, Results, read

HERE = Path(__file__).resolve().parent
QUICK = {"clients": 300, "events": 100, "rounds": 1, "idle": 1000, "seconds": 2.0, "crowd": 1000, "many": 2000}
FULL = {"clients": 1000, "events": 200, "rounds": 3, "idle": 1000, "seconds": 2.5, "crowd": 18000, "many": 10000}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help="which, separated by commas [all: %(default)s]")
    parser.add_argument("--load", default="all", help=f"which, separated by commas [all] ({', '.join(KINDS)})")
    parser.add_argument("--clients", type=int, help=f"clients that get the events [{FULL['clients']}]")
    parser.add_argument(
        "--events", type=int, help=f"events one by one, in each round; slow servers get fewer [{FULL['events']}]"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds; the servers take turns in each [{FULL['rounds']}]")
    parser.add_argument("--idle", type=int, help=f"idle clients; 0: only deliveries [{FULL['idle']}]")
    parser.add_argument(
        "--seconds", type=float, help=f"of each turn of a load with a rate of its own [{FULL['seconds']:g}]"
    )
    parser.add_argument("--crowd", type=int, help=f"idle clients beside the others in the load idle [{FULL['crowd']}]")
    parser.add_argument("--many", type=int, help=f"clients in the load many [{FULL['many']}]")
    parser.add_argument("--quick", action="store_true", help=f"a first look: {QUICK}")
    parser.add_argument(
        "--add", action="store_true", help="to what --json has of runs before: a long run in parts, one report"
    )
    parser.add_argument("--deliveries", type=int, metavar="N", help="instead: N deliveries by towerbus, each checked")
    parser.add_argument("--strict", action="store_true", help="a missed goal is a failure, too")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="file for all figures [%(default)s]")
    parser.add_argument("--plot", type=Path, default=HERE / "results.svg", help="file for the plot [%(default)s]")
    options = parser.parse_args(argv)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.peers = _listed(parser, "--peers", options.peers, PEERS)
    options.load = list(KINDS) if options.load == "all" else _listed(parser, "--load", options.load, KINDS)
    most = MOST_CLIENTS - FIRST_CLIENTS
    if max(options.clients, options.idle, options.many) > most or (
        "idle" in options.load and options.clients + options.crowd > most
    ):
        parser.error(f"more than {most} clients of one server are more than one process may have open")
    return options


def _listed(parser: argparse.ArgumentParser, option: str, given: str, there: Mapping[str, object]) -> list[str]:
    names = given.split(",")
    for name in names:
        if name not in there:
            parser.error(f"{option}: there is no {name!r}; there are {', '.join(there)}")
    return names


def installed(names: Sequence[str]) -> list[str]:
    """Those of the peers that can be started; says what the others want."""
    there = []
    for name in names:
        if wanted := PEERS[name].missing():
            print(f"skipped: {PEERS[name].title} needs {wanted}", file=sys.stderr)
        else:
            there.append(name)
    return there


def one_load(names: Sequence[str], kind: Kind, load: Load) -> dict[str, Figures]:
    """The figures of all servers in one load; a server that fails is a fault and does not end the others' turns."""
    disturbance = Disturbance()
    figures = kind.measure({name: PEERS[name] for name in names if PEERS[name].bears(kind.name)}, load)
    share = disturbance.share() * 100
    for name, found in figures.items():
        found.values[f"{kind.name}_others_percent"] = share
        if kind.name == "topic" and load.idle:
            _connections(name, found, load)
    return figures


def _connections(name: str, figures: Figures, load: Load) -> None:
    if figures.faults:
        return
    try:
        found = measure.alone(PEERS[name], load)
        figures.values |= found.values
        figures.faults += found.faults
    except (RuntimeError, OSError) as error:
        figures.faults.append(str(error))


def check_files(options: argparse.Namespace) -> None:
    """Nothing is measured that could not be kept.

    Raises:
        Refused: If a file can't be written, or not be added to.
    """
    if options.json.absolute() == options.plot.absolute():
        raise Refused(f"--json and --plot are both {options.json}: name two files")
    for option, file in (("--json", options.json), ("--plot", options.plot)):
        try:
            there = file.exists() or file.is_symlink()
            file.open("a").close()
            if not there:
                file.unlink()
        except OSError as error:
            raise Refused(f"can't write {file}: {error.strerror}; name another file ({option})") from None
    if options.add and options.json.exists():
        read(options.json)
    elif options.add:
        print(f"there is no {options.json} to add to: this run begins it", file=sys.stderr)


def taking_part(names: Sequence[str], kinds: Sequence[Kind]) -> list[str]:
    """Those of the peers that bear one of the loads; says which others do not.

    Raises:
        Refused: If there is none.
    """
    there = [name for name in names if any(PEERS[name].bears(kind.name) for kind in kinds)]
    loads = ", ".join(kind.name for kind in kinds)
    for name in names:
        if name not in there:
            print(f"skipped: {PEERS[name].title} takes no part in {loads}", file=sys.stderr)
    if not there:
        raise Refused("there is nothing to measure: none of these servers takes part in any of these loads")
    return there


def compare(options: argparse.Namespace) -> bool:
    """Measure all servers in turns. Returns whether nothing was lost, repeated, out of order or damaged.

    Raises:
        Refused: Before anything is measured, if it could not be kept or added, or if there is nothing to measure.
    """
    check_files(options)
    load = Load(options.clients, options.events, options.idle, options.seconds, options.crowd, options.many)
    kinds = [KINDS[name] for name in options.load]
    names = taking_part(installed(options.peers), kinds)
    results = Results(load, Origin.now(names))
    if options.add and options.json.exists():
        results.add_file(options.json)
    for number in range(options.rounds):
        for kind in kinds:
            started = time.monotonic()
            found = one_load(names, kind, load)
            results.add(number, kind.name, found, time.monotonic() - started)
            said = f"round {number + 1} of {options.rounds}, {kind.name} ({time.monotonic() - started:.0f} s):"
            print(f"{said}\n{report.table([found], kind.name)}\n", file=sys.stderr)
            keep(results, options)
    show(results)
    return not results.faults and (not options.strict or all(each.met for each in goals.judged(results.rounds)))


def about(results: Results) -> str:
    """What was measured when, and on what, in two lines."""
    sizes = f"{results.load.clients} clients, {SIZE}-byte events, medians of {len(results.rounds)} rounds"
    return f"{sizes}; {results.origin.when()}\n{results.origin.where()}"


def keep(results: Results, options: argparse.Namespace) -> None:
    """Write the files: also a run that is broken off has left what it measured."""
    judged = goals.judged(results.rounds)
    results.write(options.json, [{"goal": each.text, "met": each.met} for each in judged])
    options.plot.write_text(plot.svg(results.rounds, about(results)))


def show(results: Results) -> None:
    """All tables, the goals and the faults."""
    print(f"\n{about(results)}", *results.origin.consisting(), sep="\n")
    print("ratios are medians of the rounds' own; README.md says what each column means")
    for kind in (KINDS[name] for name in KINDS if name in results.seconds):
        took = results.seconds[kind.name]
        print(f"\n{kind.title} (--load {kind.name}, {took / 60:.1f} min)\n")
        print(f"{report.table(results.rounds, kind.name)}\n\n{report.ranges(results.rounds, kind.name)}")
    judged = goals.judged(results.rounds)
    met = sum(each.met for each in judged)
    print(f"\ngoals: {met} of {len(judged)} met", *(f"  {each}" for each in judged), sep="\n")
    print("\nfaults:", *(f"  {fault}" for fault in results.faults or ["none"]), sep="\n")


def truth(options: argparse.Namespace) -> bool:
    """Deliver a great many events with towerbus. Returns whether all was well."""
    started = time.monotonic()
    done, cpu, faults = measure.truth(PEERS[report.OURS], options.clients, options.deliveries)
    print(f"{done:,} deliveries to {options.clients} clients in {time.monotonic() - started:.0f} s, {cpu:.1f} s CPU")
    print("faults:", *(f"  {fault}" for fault in faults or ["none"]), sep="\n")
    return not faults and done >= options.deliveries


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    try:
        return 0 if (truth if options.deliveries else compare)(options) else 1
    except Refused as error:
        print(f"bench/run.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
