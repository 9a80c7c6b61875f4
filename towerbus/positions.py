"""Positions: an event's place in the log, opaque to clients and totally ordered.

Written `<epoch>-<term>-<offset>-<place>`: the log's identity, the active worker's term, the record's offset in the log
and the event's place in the record, counted from 1; place 0 is before the record's first event. The epoch changes when
a log is made anew; the term shows up a log that was restored from an old copy.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from towerbus.errors import PeerError

_FORM = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,9})")


class PositionError(PeerError):
    """A string that is not a position."""


class Position(NamedTuple):
    """A place in the log. Two positions compare meaningfully only within one epoch."""

    epoch: str
    term: int
    offset: int
    place: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.term}-{self.offset}-{self.place}"


class Lost(NamedTuple):
    """What can't be read from the log any more: the events behind `after`, up to `until` and with it.

    Attributes:
        after: The last position that was known; of another log, maybe.
        until: Where the log can be read on.
        reason: For a person.
    """

    after: Position
    until: Position
    reason: str


def parse(text: str) -> Position:
    """Read a position that a client sent back.

    Raises:
        PositionError: It does not have the form of one.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise PositionError(f"{text[:80]!r} is not a position: give one just as it was received")
    epoch, term, offset, place = found.groups()
    return Position(epoch, int(term), int(offset), int(place))


def new_epoch() -> str:
    """The identity of a new log: 8 hexadecimal digits that no other log is likely to have."""
    return secrets.token_hex(4)
