"""The seams between the log and those who read it. Those who write use `IIntake` (intake/interface.py)."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from towerbus.log.record import Record
from towerbus.positions import Lost, Position


class ILogFollower(Interface):
    """Who reads along: the fan-out's side."""

    def received(record: Record) -> Deferred[None] | None:
        """Take the next record. Records come in the order of the log, each once.

        Returns:
            None, or a Deferred where so much is not yet passed on that the log's producers should wait for it.
        """

    def lost(lost: Lost) -> None:
        """Hear that a part of the log went by unread and can't be read any more. The next record is behind it."""


class IReplay(Interface):
    """Older records, read piece by piece at the pace of whoever reads them."""

    def more() -> Deferred[Sequence[Record]]:
        """Read the next records.

        Returns:
            Some of the next records, in order; none when all that the log has now were given. It fails with
            `PositionLostError` when the log let go of them meanwhile, and with `BusUnavailable` while the log can't be
            read. One call at a time.
        """

    def close() -> None:
        """Let go of what it holds. A call of `more` that is under way may still be answered, or never."""


class ILog(Interface):
    """An ordered, replayable record of events.

    An event is in the log exactly once and never changes its position. Old records are let go by age and by size.
    """

    tail = Attribute("The newest records, in memory: a `Tail`. A record is in it before followers get it.")

    def follow(follower: ILogFollower) -> None:
        """Hand every record from now on to the follower."""

    def replay(after: Position) -> Deferred[IReplay]:
        """Read what stands behind a position, also what is no longer in the tail.

        Returns:
            The records from the one that holds the position on. Those of its events at or before it are the caller's
            to skip. It fails with `PositionLostError` where the answer would not be complete; `replay(lost.until)` then
            gives what is left. It fails with `BusUnavailable` while the log can't be read.
        """
