"""What a worker knows of the log from reading it: its identity, the highest term, and which events are in it. Pure.

Voiding. A record whose term is below the highest before it in the log comes from a worker that had lost the intake and
did not know it yet. It is void: every reader passes it over, so its events are not in the log, and their ids are not
remembered here. They are not lost by that. Whoever wrote the higher term is the active worker, and it became so because
the broker had taken the intake from the other, and given back to the queue all that the other had not acknowledged; its
fence came after that. A worker acknowledges what is in a record only when that record is confirmed. So the messages of
a record behind the fence were not acknowledged when the intake was taken away: they were delivered again, to the new
one, and are in records of its own. (What the other acknowledges after that is a delivery that is no longer its own, and
counts for nothing.)
"""

from __future__ import annotations

from collections.abc import Sequence

from towerbus.event import Event
from towerbus.log.record import Record
from towerbus.log.window import IdWindow


class KnownLog:
    """The log, as far as it was read in this session with the broker.

    Attributes:
        epoch: Its identity; empty while no record was read.
        term: The highest term; 0 while no record was read.
        window: The ids of the newest events in it.
        voided: Records that were read and are void.
    """

    def __init__(self) -> None:
        self.epoch = ""
        self.term = 0
        self.window = IdWindow()
        self.voided = 0

    def read(self, record: Record) -> bool:
        """Take the next record of the log.

        Returns:
            Whether it counts; else it is void.
        """
        if record.term < self.term:
            self.voided += 1
            return False
        self.epoch, self.term = record.epoch, record.term
        self.window.add(record.events)
        return True

    def wrote(self, events: Sequence[Event]) -> None:
        """Take note of events that we wrote: their record is in the log."""
        self.window.add(events)

    def next_term(self, now: float) -> int:
        """A term higher than all that were read.

        Args:
            now: Seconds since the epoch of Unix: a log that was restored from an old copy shows up by its terms.
        """
        return max(self.term + 1, int(now))

    def fenced(self, epoch: str, term: int) -> bool:
        """Take our own fence, read back.

        Returns:
            Whether it holds: its term is above all that come before it, and it has their epoch. Else another worker
            wrote just before it, and a new fence is needed, above that.
        """
        holds = term > self.term and self.epoch in {"", epoch}
        self.term = max(self.term, term)
        self.epoch = self.epoch or epoch
        return holds
