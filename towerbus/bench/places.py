"""Where in the log events stand, as the clients of `towerbus.v1` were told: all must be told the same. Pure."""

from __future__ import annotations

from towerbus.positions import PositionError, parse


class Places:
    """The place of each event, and the time that stands with it.

    Attributes:
        told: What the first client was told of each event, by its number: the position, and the time.
        newest: The highest number of these; -1 before any.
    """

    def __init__(self) -> None:
        self.told: dict[int, tuple[str, float]] = {}
        self.newest = -1

    def differs(self, number: int, position: str, time: float) -> str:
        """What others were told of an event, in words, where it is not the same; empty where it is."""
        known = self.told.setdefault(number, (position, time))
        self.newest = max(self.newest, number)
        return unlike(known, (position, time))

    def position(self, number: int) -> str | None:
        """An event's position; None where nobody was told."""
        known = self.told.get(number)
        return None if known is None else known[0]


def unlike(known: tuple[str, float], told: tuple[str, float]) -> str:
    """How two accounts of an event's place and time differ, in words; empty where they do not."""
    for what, one, other in zip(("position", "time"), known, told, strict=True):
        if one != other:
            return f"its {what} is {other}, and other clients were told {one}"
    return ""


def behind(position: str, other: str) -> bool:
    """Whether a position is behind another one of the same log; of another log it may be anywhere."""
    try:
        one, two = parse(position), parse(other)
    except PositionError:
        return False
    return one.epoch != two.epoch or one > two


def may_follow(position: str, other: str) -> bool:
    """Whether a position may be told after another one: it is not before it, or is of another log."""
    return position == other or behind(position, other)


def is_position(text: str) -> bool:
    """Whether a text has the form of one."""
    try:
        parse(text)
    except PositionError:
        return False
    return True
