"""Log records: the events that were ordered in one turn, with their place in the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from towerbus.event import Event
from towerbus.positions import Position

MAX_EVENTS = 256
"""Events in a record, at the most."""
MAX_BYTES = 64 * 1024
"""Bytes of payload in a record, at the most; a larger event has a record of its own."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the log.

    Attributes:
        epoch: The log's identity.
        term: The term of the worker that wrote it.
        offset: Its place in the log; rises by one or more from record to record.
        events: What it holds, in order. A fence holds none.
    """

    epoch: str
    term: int
    offset: int
    events: tuple[Event, ...]

    def position(self, index: int) -> Position:
        """The position of `events[index]`: whoever has it has that event and all before it."""
        return Position(self.epoch, self.term, self.offset, index + 1)

    @property
    def begin(self) -> Position:
        """The position before its first event."""
        return Position(self.epoch, self.term, self.offset, 0)

    @property
    def end(self) -> Position:
        """The position of its last event; of its beginning, where it holds none."""
        return Position(self.epoch, self.term, self.offset, len(self.events))

    def behind(self, place: Position) -> range:
        """The numbers of its events that stand behind a place in the same log."""
        if place <= self.begin:
            return range(len(self.events))
        return range(place.place if place < self.end else len(self.events), len(self.events))


def batches(events: Sequence[Event]) -> Iterator[tuple[Event, ...]]:
    """Cut events into what may stand in one record each, in order."""
    batch: list[Event] = []
    size = 0
    for event in events:
        if batch and (len(batch) >= MAX_EVENTS or size + len(event.payload) > MAX_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(event)
        size += len(event.payload)
    if batch:
        yield tuple(batch)
