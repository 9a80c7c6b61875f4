"""The medians as bars in one SVG file, a panel for each load, on logarithmic scales: they go over decades."""

from __future__ import annotations

import math
from html import escape
from statistics import median
from textwrap import wrap
from typing import NamedTuple

from peers import PEERS
from report import OURS, Rounds, series

PANELS = (
    ("w1_us", "One topic, one event in flight: CPU per delivery", "us"),
    ("b10_us", "One topic, bursts of ten: CPU per delivery", "us"),
    ("day_us", "Tower's day: CPU per delivery", "us"),
    ("navigation_us", "Page navigation: CPU per delivery", "us"),
    ("slow_us", "2 % slow readers: CPU per delivery to the others", "us"),
    ("idle_w1_us", "Beside an idle crowd: CPU per delivery", "us"),
    ("many_w1_us", "Very many clients, one event in flight: CPU per delivery", "us"),
    ("deflate_w1_us", "Compressed job events: CPU per delivery", "us"),
    ("storm_bare_client_us", "Reconnect storm: CPU per client that comes back", "us"),
    ("storm_recovered_us", "Reconnect storm: CPU per recovered event, where any is", "us"),
    ("pace_p99_ms", "20 events a second: p99 to the last client", "ms"),
    ("idle_kb", "Memory of an idle client", "KB"),
    ("handshake_us", "CPU of a handshake", "us"),
)
BARE = ("idle_kb", "handshake_us")
"""Figures of what the floor does not have: sessions."""
WIDTH, LABEL, VALUE, ROW, HEAD, GAP, LINE_HEIGHT, CHARACTERS = 860, 240, 70, 20, 44, 26, 16, 130
NOTE = (
    "Scales are logarithmic: each line is ten times the one before. Bars are medians, thin lines go from least to most."
)
BAR = WIDTH - LABEL - VALUE
OUR_COLOUR, THEIR_COLOUR, FLOOR_COLOUR, INK, LINE = "#b3332b", "#7a8ca3", "#c9c9c9", "#222222", "#e4e4e4"


class Bar(NamedTuple):
    """One server in a panel."""

    name: str
    least: float
    middle: float
    most: float


def svg(rounds: Rounds, about: str) -> str:
    """All panels for which there are figures.

    Args:
        rounds: The figures.
        about: What was measured on what, in a few lines.
    """
    parts: list[str] = []
    lines = [part for line in [*about.splitlines(), NOTE] for part in wrap(line, CHARACTERS, break_on_hyphens=False)]
    top = LINE_HEIGHT * len(lines) + GAP // 2
    for figure, title, unit in PANELS:
        if bars := _bars(rounds, figure):
            parts.append(_panel(bars, title, unit, top))
            top += HEAD + ROW * len(bars) + GAP
    head = "".join(
        f'<text x="8" y="{LINE_HEIGHT * number}">{escape(line)}</text>' for number, line in enumerate(lines, start=1)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}"><rect width="100%" height="100%" fill="white"/>'
        f"{head}{''.join(parts)}</svg>\n"
    )


def _bars(rounds: Rounds, figure: str) -> list[Bar]:
    """The servers, cheapest first; left out is what a logarithmic scale can't show, and the floor's bare sockets."""
    names = [name for name in PEERS if not (figure in BARE and name.startswith("floor"))]
    found = ((name, [value for value in series(rounds, name, figure) if value > 0]) for name in names)
    bars = [Bar(name, min(values), median(values), max(values)) for name, values in found if values]
    return sorted(bars, key=lambda bar: bar.middle)


def _panel(bars: list[Bar], title: str, unit: str, top: int) -> str:
    low = math.floor(math.log10(min(bar.least for bar in bars)))
    high = max(low + 1, math.ceil(math.log10(max(bar.most for bar in bars))))

    def x(value: float) -> float:
        return LABEL + BAR * (math.log10(value) - low) / (high - low)

    bottom = top + HEAD - 14 + ROW * len(bars)
    parts = [f'<text x="8" y="{top + 14}" font-weight="bold">{escape(title)} ({unit}, shorter is better)</text>']
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at:.1f}" y1="{top + 32}" x2="{at:.1f}" y2="{bottom}" stroke="{LINE}"/>')
        parts.append(f'<text x="{at:.1f}" y="{top + 29}" text-anchor="middle" font-size="10">{10.0**power:g}</text>')
    for number, bar in enumerate(bars):
        parts.append(_row(bar, x(bar.least), x(bar.middle), x(bar.most), top + HEAD - 10 + ROW * number))
    return "".join(parts)


def shown(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _row(bar: Bar, least: float, middle: float, most: float, y: int) -> str:
    colour = OUR_COLOUR if bar.name.startswith(OURS) else FLOOR_COLOUR if bar.name.startswith("floor") else THEIR_COLOUR
    return (
        f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(PEERS[bar.name].title)}</text>'
        f'<rect x="{LABEL}" y="{y}" width="{max(1.0, middle - LABEL):.1f}" height="14" fill="{colour}"/>'
        f'<line x1="{least:.1f}" y1="{y + 7}" x2="{most:.1f}" y2="{y + 7}" stroke="{INK}"/>'
        f'<text x="{max(most, middle) + 6:.1f}" y="{y + 11}">{shown(bar.middle)}</text>'
    )
