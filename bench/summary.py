"""The figures of a run as the tables of docs/benchmarks.md, and where they come from. Measures nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from goals import Judged, judged
from measure import WITHIN
from origin import Origin
from peers import PEERS
from report import DURABLE, OURS, Rounds, ratio, series
from results import Refused, figures, read

HERE = Path(__file__).resolve().parent
COSTS = (
    ("w1_us", "one in flight"),
    ("b10_us", "bursts of ten"),
    ("many_w1_us", "10,000 clients"),
    ("day_us", "Tower's day"),
    ("navigation_us", "navigation"),
    ("slow_us", "slow readers"),
    ("idle_w1_us", "idle crowd"),
    ("deflate_w1_us", "compressed"),
)
"""CPU for each delivery."""
OTHERS = (
    ("idle_kb", "KB a client", 1),
    ("handshake_us", "us a handshake", 0),
    ("subscribe_us", "us a subscription", 0),
    ("pace_p99_ms", "p99 ms at 20/s", 1),
    ("paced_p99_ms", "p99 ms at 200/s", 1),
    ("storm_bare_client_us", "us a client back", 0),
    ("storm_missed", "lost a client", 0),
    ("storm_told_percent", "told %", 0),
)
"""What a connection costs, how late events are, and what a reconnect storm does."""


def summary(rounds: Rounds, origin: Origin) -> str:
    """The tables: costs, others, and the goals that are missed; below them where the figures come from."""
    goals = judged(rounds)
    costs = [title for _, title in COSTS]
    others = [title for _, title, _ in OTHERS]
    return "\n".join(
        [
            *_table(["us CPU a delivery", *costs], _costs(rounds)),
            "",
            *_table(["server", *others], _others(rounds)),
            "",
            f"{sum(each.met for each in goals)} of {len(goals)} goals are met. The others:",
            "",
            *_table(["server", "figure", "is", "at most"], _missed(goals)),
            "",
            f"Measured: {origin.when()}; {origin.where()}.",
            "",
            *origin.consisting(),
        ]
    )


def _table(head: Sequence[str], lines: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for line in lines:
        if any(line[1:]):
            yield f"| {' | '.join(line)} |"


def _costs(rounds: Rounds) -> Iterator[list[str]]:
    for name, peer in PEERS.items():
        cells = []
        for figure, _ in COSTS:
            values, times = series(rounds, name, figure), ratio(rounds, name, OURS, figure)
            cell = _us(median(values)) if values else ""
            cells.append(cell if times is None or name == OURS else f"{cell} ({_times(times)})")
        yield [peer.title, *cells]
        if name == DURABLE:
            shares = [series(rounds, name, f"{figure[:-3]}{WITHIN}broker_us") for figure, _ in COSTS]
            yield ["of it the broker", *(_us(median(values)) if values else "" for values in shares)]


def _others(rounds: Rounds) -> Iterator[list[str]]:
    for name, peer in PEERS.items():
        found = [(series(rounds, name, figure), digits) for figure, _, digits in OTHERS]
        yield [peer.title, *(_shown(median(values), digits) if values else "" for values, digits in found)]


def _missed(goals: Sequence[Judged]) -> Iterator[list[str]]:
    for each in goals:
        if not each.met:
            yield [each.server, each.figure, each.found, each.most]


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _shown(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if value >= 0 else "too little"


def _times(times: float) -> str:
    return f"{times:.2f}x" if times < 10 else f"{times:.0f}x"  # noqa: PLR2004 - three digits


def main(argv: Sequence[str]) -> int:
    """Print the tables of one file of results."""
    parser = argparse.ArgumentParser(prog="bench/summary.py", description=__doc__)
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=HERE / "results.json",
        help="what bench/run.py has written (--json): of the last run [%(default)s], or one of bench/measured/",
    )
    options, more = parser.parse_known_args(argv)
    try:
        if more:
            raise Refused(f"takes one file, not also {' '.join(more)}: see --help")
        found = read(options.file)
    except Refused as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(summary(figures(found), Origin.recorded(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
