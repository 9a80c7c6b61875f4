"""What replays have in common, wherever the log is stored: when the tail takes over, how much is given. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from towerbus.errors import PositionLostError
from towerbus.log.record import Record
from towerbus.log.tail import OVERHEAD, Tail
from towerbus.positions import Position


def in_tail(tail: Tail, position: Position) -> bool:
    """Whether all that is behind a position is in memory. Where it is not, the stored log knows what became of it."""
    try:
        return tail.covers(position)
    except PositionLostError:
        return False


def from_tail(tail: Tail, after: Position, most: int) -> Sequence[Record]:
    """The next records behind a position that the tail covers; none where there are none.

    Args:
        tail: The newest records.
        after: The position.
        most: Bytes in a piece, about: the record that reaches it is the last.
    """
    size = 0
    records = tail.records(after)
    for number, record in enumerate(records):
        size += size_of(record)
        if size >= most:
            return records[: number + 1]
    return records


def size_of(record: Record) -> int:
    """Bytes that a record is counted as."""
    return sum(len(event.payload) + OVERHEAD for event in record.events) + OVERHEAD
