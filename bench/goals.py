"""What the figures are to be, and whether they are."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from report import DURABLE, FLOOR, OURS, Rounds, ratio, series

BOTH = (OURS, DURABLE)
CHANNELS, NATS, NCHAN, WS, UWS, STOMP = "channels", "nats", "nchan", "ws", "uwebsockets", "web-stomp"


class Goal(NamedTuple):
    """One of the figures that matter.

    Attributes:
        figure: Ours.
        most: What it may be.
        peer: `most` is a multiple of this peer's same figure; empty if it stands for itself.
        servers: Which of ours.
    """

    figure: str
    most: float
    peer: str = ""
    servers: tuple[str, ...] = (OURS,)


GOALS = (
    Goal("w1_us", 1 / 80, CHANNELS),
    Goal("w1_us", 1 / 5, "sendmessage"),
    Goal("w1_us", 1 / 2.5, NATS),
    Goal("w1_us", 1 / 1.5, WS),
    Goal("w1_us", 1 / 1.2, NCHAN),
    Goal("w1_us", 1.0, UWS),
    Goal("w1_us", 1.2, FLOOR),
    Goal("b10_us", 0.6),
    Goal("b10_us", 1 / 9, NCHAN),
    Goal("b10_us", 1 / 3.5, NATS),
    Goal("b10_us", 1 / 1.1, UWS),
    Goal("w1_us", 1 / 50, CHANNELS, (DURABLE,)),
    Goal("w1_us", 1 / 11, STOMP, (DURABLE,)),
    Goal("w1_us", 1 / 1.6, NATS, (DURABLE,)),
    Goal("w1_us", 1.6, OURS, (DURABLE,)),
    Goal("b10_us", 1 / 2.2, NATS, (DURABLE,)),
    Goal("b10_us", 1 / 5, NCHAN, (DURABLE,)),
    Goal("many_w1_us", 1 / 2.3, NATS, (DURABLE,)),
    Goal("many_w1_us", 1 / 1.3, NCHAN, (DURABLE,)),
    Goal("many_w1_us", 1.0, UWS, (DURABLE,)),
    Goal("many_w1_us", 1.15, OURS, (DURABLE,)),
    *(
        Goal(figure, 1 / times, peer, BOTH)
        for figure in ("day_us", "navigation_us", "slow_us", "idle_w1_us")
        for peer, times in ((CHANNELS, 50), (NATS, 2))
    ),
    Goal("idle_kb", 3.0, servers=BOTH),
    Goal("idle_kb", 1 / 12, CHANNELS, BOTH),
    Goal("idle_kb", 1 / 8, NATS, BOTH),
    Goal("idle_kb", 1 / 3, NCHAN, BOTH),
    Goal("handshake_us", 150.0, servers=BOTH),
    Goal("handshake_us", 1 / 9, CHANNELS, BOTH),
    Goal("handshake_us", 1.0, NATS, BOTH),
    Goal("pace_p99_ms", 1.2, FLOOR),
    Goal("pace_p99_ms", 1.8, FLOOR, (DURABLE,)),
    Goal("paced_p50_ms", 3.0, servers=(DURABLE,)),
    Goal("paced_p99_ms", 8.0, servers=(DURABLE,)),
    Goal("deflate_w1_us", 1 / 10, "sendmessage", BOTH),
    Goal("idle_w1_growth", 1.1, servers=BOTH),
    Goal("topics_w1_growth", 1.1, servers=BOTH),
)


class Judged(NamedTuple):
    """What became of a goal.

    Attributes:
        server: Which of ours.
        figure: What it is about.
        found: What it is, in words.
        most: What it may be, in words.
        met: Whether it is met.
    """

    server: str
    figure: str
    found: str
    most: str
    met: bool

    @property
    def text(self) -> str:
        """All of it but whether it is met."""
        return f"{self.server}: {self.figure} {self.found}, at most {self.most}"

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'} {self.text}"


def judged(rounds: Rounds) -> list[Judged]:
    """Each goal that the measured loads and servers allow to judge."""
    return list(_judged(rounds))


def _judged(rounds: Rounds) -> Iterator[Judged]:
    for goal in GOALS:
        for server in goal.servers:
            values = series(rounds, server, goal.figure)
            times = ratio(rounds, server, goal.peer, goal.figure) if goal.peer else None
            if not values or (goal.peer and times is None):
                continue
            most = _part(goal.most) if goal.peer else f"{goal.most:g}"
            if median(values) <= 0:
                few = f"{median(values):.2f} (too few clients to measure it)"
                yield Judged(server, goal.figure, few, most, met=False)
            elif times is None:
                yield Judged(server, goal.figure, f"{median(values):.2f}", most, median(values) <= goal.most)
            else:
                yield Judged(server, goal.figure, f"{_part(times)} of {goal.peer}'s", most, times <= goal.most)


def _part(times: float) -> str:
    """A multiple of something, for a person: below 1 it is a part."""
    return f"1/{1 / times:.3g}" if times < 1 else f"{times:.3g}"
