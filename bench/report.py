"""The figures of all rounds as a table, with ratios to towerbus, and the goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from measure import Figures
from peers import PEERS

OURS = "towerbus"
COLUMNS = (
    ("w1_us", "w1 us", 2),
    ("b10_us", "b10 us", 2),
    ("w1_p50_ms", "w1 p50 ms", 1),
    ("w1_p99_ms", "p99 ms", 1),
    ("idle_kb", "KB/idle", 1),
    ("handshake_us", "handshake us", 0),
    ("subscribe_us", "subscribe us", 0),
    ("others_percent", "others %", 0),
)
RATIOS = ("w1_us", "b10_us")
Rounds = Sequence[Mapping[str, Figures]]


class Goal(NamedTuple):
    """One of the figures that matter.

    Attributes:
        figure: Ours.
        most: What it may be.
        peer: `most` is a multiple of this peer's same figure; empty if it stands for itself.
    """

    figure: str
    most: float
    peer: str = ""


GOALS = (
    Goal("w1_us", 1 / 60, "channels"),
    Goal("w1_us", 1 / 5, "sendmessage"),
    Goal("w1_us", 1.1, "nchan"),
    Goal("b10_us", 0.6),
    Goal("idle_kb", 4.0),
    Goal("handshake_us", 200.0),
)


def series(rounds: Rounds, name: str, figure: str) -> list[float]:
    """One figure in all rounds that have it."""
    return [each[name].values[figure] for each in rounds if name in each and figure in each[name].values]


def ratio(rounds: Rounds, name: str, figure: str) -> float | None:
    """A peer's figure as a multiple of ours: the median of the rounds' own ratios, so that what slowed both cancels."""
    pairs = [
        each[name].values[figure] / each[OURS].values[figure]
        for each in rounds
        if name in each and OURS in each and figure in each[name].values and figure in each[OURS].values
    ]
    return median(pairs) if pairs else None


def table(rounds: Rounds) -> str:
    """Medians, a server a line."""
    head = ["server", *(title for _, title, _ in COLUMNS), *(f"{figure[:-3]} / towerbus" for figure in RATIOS)]
    lines = [head]
    for name, peer in PEERS.items():
        if not any(name in each for each in rounds):
            continue
        cells = [peer.title]
        for figure, _, digits in COLUMNS:
            values = series(rounds, name, figure)
            cells.append(f"{median(values):.{digits}f}" if values else "-")
        for figure in RATIOS:
            times = ratio(rounds, name, figure)
            cells.append("-" if times is None else f"{times:.2f}x" if times < 10 else f"{times:.0f}x")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def ranges(rounds: Rounds) -> str:
    """The least and the most of the deciding figure, and what processes beside a server cost."""
    lines = []
    for name, peer in PEERS.items():
        measured = [(figure[:-3], values) for figure in RATIOS if (values := series(rounds, name, figure))]
        lines.extend(f"  {peer.title}: {short} {min(v):.2f} to {max(v):.2f} us" for short, v in measured)
        beside = sorted(
            {f for each in rounds if name in each for f in each[name].values if f.count("_") == 2 and f.endswith("_us")}
        )
        lines.extend(f"  {peer.title}: beside it, {f[:-3]} {median(series(rounds, name, f)):.2f} us" for f in beside)
    return "\n".join(lines)


def goals(rounds: Rounds) -> list[tuple[str, bool]]:
    """Each goal that the measured servers allow to judge, in words, and whether it is met."""
    judged = []
    for goal in GOALS:
        if not goal.peer:
            values = series(rounds, OURS, goal.figure)
            if values:
                judged.append(
                    (f"{goal.figure} {median(values):.2f}, at most {goal.most:g}", median(values) <= goal.most)
                )
        elif times := ratio(rounds, goal.peer, goal.figure):
            most = f"1/{1 / goal.most:.0f}" if goal.most < 1 else f"{goal.most:g}"
            text = f"{goal.figure} {1 / times:.3f} of {goal.peer}'s (1/{times:.2f}), at most {most}"
            judged.append((text, 1 / times <= goal.most))
    return judged
