"""The records of a stored log as one reader meets them: what counts, what is void, what can't be read. Pure.

A record is void when its term is below the highest that was read before it: a worker that was no longer the active one
wrote it. Internal events (those of the canaries) are taken out here, so that nothing behind this point passes them on;
a place in a record counts the others.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import NamedTuple

from towerbus.errors import TowerbusError
from towerbus.event import Event
from towerbus.log.packing import NotARecord, unpack
from towerbus.log.record import Record
from towerbus.positions import Lost, Position


class Stored(NamedTuple):
    """A record as it is stored.

    Attributes:
        offset: Its place in the log.
        body: Its bytes.
    """

    offset: int
    body: bytes


class Step(NamedTuple):
    """What a stored record came to.

    Attributes:
        record: The record; None where it does not count.
        internal: The internal events that were taken out of it.
        lost: What can't be read: it ends before the record.
        size: Bytes of the record as it is stored.
    """

    record: Record | None = None
    internal: Several[Event] = ()
    lost: Lost | None = None
    size: int = 0


NOTHING = Step()


class AnotherLog(TowerbusError):
    """A record of another epoch: the log was made anew.

    Args:
        record: The record.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(f"the record at offset {record.offset} is of another log: it was made anew")
        self.record = record


class Sequence:
    """What a reader knows of the log, from record to record.

    Args:
        begin: The position to read behind; None where the first good record is to show what log it is.
    """

    def __init__(self, begin: Position | None) -> None:
        self.end = begin
        """The position of the last event that counts; None as long as nothing is known of the log."""
        self.term = 0 if begin is None else begin.term
        """The highest term that was read."""
        self.offset = -1 if begin is None else begin.offset
        """The offset of the last stored record, whether it counts or not."""
        self.voided = 0
        """How many were void."""
        self.unreadable = 0
        """How many could not be read."""

    def leaps(self, offset: int) -> bool:
        """Whether so much is missing before an offset that records may have gone by unread.

        RabbitMQ uses up one offset itself whenever it begins a segment; a reader that retention overtakes is set behind
        the gap without a word.
        """
        return offset > self.offset + 2

    def take(self, offset: int, body: bytes) -> Step:
        """Read the next stored record.

        Raises:
            AnotherLog: It is of another epoch; nothing was taken.
        """
        try:
            record = unpack(body, offset)
        except NotARecord as error:
            return self._unreadable(offset, str(error))
        if self.end is not None and record.epoch != self.end.epoch:
            raise AnotherLog(record)
        self.offset = offset
        if record.term < self.term:
            self.voided += 1
            return NOTHING
        record, internal = without_internal(record)
        self.term = record.term
        self.end = record.end
        return Step(record, internal, size=len(body))

    def place(self, offset: int) -> Position | None:
        """The position of a stored record that holds no events for us."""
        return None if self.end is None else Position(self.end.epoch, self.term, offset, 0)

    def _unreadable(self, offset: int, reason: str) -> Step:
        self.offset = offset
        self.unreadable += 1
        before, self.end = self.end, self.place(offset)
        if before is None or self.end is None:
            return NOTHING
        return Step(lost=Lost(before, self.end, reason))


def without_internal(record: Record) -> tuple[Record, Several[Event]]:
    """Take the internal events out of a record."""
    internal = [event for event in record.events if event.topic[0][:1] == "_"]
    if not internal:
        return record, ()
    events = tuple(event for event in record.events if not event.topic.internal)
    return Record(record.epoch, record.term, record.offset, events), internal
