"""The figures of all rounds as tables, one for each load, with ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from measure import BESIDE, WITHIN, Figures
from peers import PEERS

OURS = "towerbus"
DURABLE = "towerbus-rabbitmq"
FLOOR = "floor"
Rounds = Sequence[Mapping[str, Figures]]


class Table(NamedTuple):
    """What is shown of a load.

    Attributes:
        columns: Figure, title, digits behind the point.
        ratios: Figures that are shown as multiples of another server's, and that server.
    """

    columns: tuple[tuple[str, str, int], ...]
    ratios: tuple[tuple[str, str], ...]


def _timed(name: str, *more: tuple[str, str, int], other: str = OURS, ratio: str = "us") -> Table:
    columns = ((f"{name}_us", "us", 2), (f"{name}_p50_ms", "p50 ms", 1), (f"{name}_p99_ms", "p99 ms", 1))
    return Table((*columns, *more, (f"{name}_others_percent", "others %", 0)), ((f"{name}_{ratio}", other),))


def _grown(name: str) -> Table:
    columns = tuple(
        (f"{name}_{figure}", title, 2)
        for kind in ("w1", "b10")
        for figure, title in (
            (f"without_{kind}_us", f"{kind} us without"),
            (f"{kind}_us", f"{kind} us with"),
            (f"{kind}_growth", "with / without"),
        )
    )
    return Table((*columns, (f"{name}_others_percent", "others %", 0)), ((f"{name}_w1_us", OURS),))


TABLES = {
    "topic": Table(
        (
            ("w1_us", "w1 us", 2),
            ("b10_us", "b10 us", 2),
            ("w1_p50_ms", "w1 p50 ms", 1),
            ("w1_p99_ms", "p99 ms", 1),
            ("paced_p50_ms", "200/s p50 ms", 1),
            ("paced_p99_ms", "p99 ms", 1),
            ("idle_kb", "KB/idle", 1),
            ("handshake_us", "handshake us", 0),
            ("subscribe_us", "subscribe us", 0),
            ("topic_others_percent", "others %", 0),
        ),
        (("w1_us", OURS), ("b10_us", OURS)),
    ),
    "many": Table(
        (
            ("many_w1_us", "w1 us", 2),
            ("many_b10_us", "b10 us", 2),
            ("many_w1_p50_ms", "w1 p50 ms", 1),
            ("many_w1_p99_ms", "p99 ms", 1),
            ("many_others_percent", "others %", 0),
        ),
        (("many_w1_us", OURS), ("many_b10_us", OURS)),
    ),
    "storm": Table(
        (
            ("storm_bare_client_us", "us/client", 0),
            ("storm_client_us", "with missed", 0),
            ("storm_recovered_us", "us/recovered", 2),
            ("storm_missed", "lost/client", 0),
            ("storm_told_percent", "told %", 0),
            ("storm_bare_served_ms", "back ms", 0),
            ("storm_served_ms", "served ms", 0),
            ("storm_peak_mb", "peak MB", 0),
            ("storm_others_percent", "others %", 0),
        ),
        (("storm_bare_client_us", OURS),),
    ),
    "deflate": Table(
        (
            ("deflate_w1_us", "w1 us", 2),
            ("deflate_b10_us", "b10 us", 2),
            ("deflate_w1_wire", "bytes sent", 0),
            ("deflate_w1_p50_ms", "w1 p50 ms", 1),
            ("deflate_w1_p99_ms", "p99 ms", 1),
            ("deflate_others_percent", "others %", 0),
        ),
        (("deflate_w1_us", "sendmessage"), ("deflate_b10_us", "sendmessage")),
    ),
    "pace": _timed("pace", other=FLOOR, ratio="p99_ms"),
    "day": _timed("day", ("day_kept_percent", "kept %", 0)),
    "navigation": _timed("navigation", ("navigation_kept_percent", "kept %", 0)),
    "slow": _timed("slow", ("slow_whole", "whole", 0), ("slow_cut", "cut", 0), ("slow_silent", "silent", 0)),
    "idle": _grown("idle"),
    "topics": _grown("topics"),
}


def series(rounds: Rounds, name: str, figure: str) -> list[float]:
    """One figure in all rounds that have it."""
    return [each[name].values[figure] for each in rounds if name in each and figure in each[name].values]


def ratio(rounds: Rounds, name: str, other: str, figure: str) -> float | None:
    """A figure as a multiple of another server's: the median of the rounds' own ratios; what slowed both cancels."""
    pairs = [
        each[name].values[figure] / each[other].values[figure]
        for each in rounds
        if name in each and other in each and figure in each[name].values and each[other].values.get(figure)
    ]
    return median(pairs) if pairs else None


def table(rounds: Rounds, load: str) -> str:
    """Medians of one load, a server a line."""
    shown = TABLES[load]
    titles = (f"{figure.rpartition('_')[0].removeprefix(f'{load}_')} / {other}" for figure, other in shown.ratios)
    lines = [["server", *(title for _, title, _ in shown.columns), *titles]]
    lines.extend(_line(rounds, shown, name) for name in PEERS if series(rounds, name, shown.ratios[0][0]))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _line(rounds: Rounds, shown: Table, name: str) -> list[str]:
    cells = [PEERS[name].title]
    for figure, _, digits in shown.columns:
        values = series(rounds, name, figure)
        cells.append(f"{median(values):.{digits}f}" if values else "-")
    for figure, other in shown.ratios:
        times = ratio(rounds, name, other, figure)
        cells.append("-" if times is None else f"{times:.2f}x" if times < 10 else f"{times:.0f}x")
    return cells


def ranges(rounds: Rounds, load: str) -> str:
    """The least and the most of the deciding figures, and what single processes of a server or beside it cost."""
    return "\n".join(_ranges(rounds, load))


def _ranges(rounds: Rounds, load: str) -> Iterator[str]:
    shown = [figure for figure, *_ in TABLES[load].columns if figure.endswith("_us") and "_without_" not in figure]
    for name, peer in PEERS.items():
        for figure in shown if load != "topic" else ("w1_us", "b10_us"):
            values = series(rounds, name, figure)
            if len(values) > 1:
                yield f"  {peer.title}: {figure[:-3]} {min(values):.2f} to {max(values):.2f} us"
            found = {f for each in rounds if name in each for f in each[name].values}
            for where, said in ((WITHIN, "of it"), (BESIDE, "beside it")):
                for apart in sorted(f for f in found if f.startswith(figure[:-3] + where)):
                    process = apart.removeprefix(figure[:-3] + where).removesuffix("_us")
                    cost = median(series(rounds, name, apart))
                    yield f"  {peer.title}: {figure[:-3]}, {said} {process} {cost:.2f} us"
