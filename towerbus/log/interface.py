"""The seams between the log and those who write and read it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from towerbus.event import Event
from towerbus.log.record import Record
from towerbus.positions import Position


class ILogFollower(Interface):
    """Who reads along: the dispatcher's side."""

    def received(record: Record) -> Deferred[None] | None:
        """Take the next record. Records come in the order of the log, each once.

        Returns:
            None, or a Deferred where so much is not yet passed on that the log's producers should wait for it.
        """


class ILog(Interface):
    """An ordered, replayable record of events.

    An event is in the log exactly once and never changes its position. Old records are let go by age and by size.
    """

    epoch = Attribute("The log's identity: it changes when the log is made anew.")

    def append(events: Sequence[Event]) -> Deferred[None]:
        """Write events, in this order; the Deferred fires when they are in the log and every follower has them."""

    def follow(follower: ILogFollower) -> None:
        """Hand every record from now on to the follower."""

    def end() -> Position:
        """The position of the last event in the log; of its beginning, while it is empty."""

    def replay(after: Position) -> Deferred[list[Record]]:
        """Read what stands behind a position.

        Returns:
            The records from the one that holds the position on. Those of its events at or before it are the caller's
            to skip. It fails with `PositionLostError` where the answer would not be complete.
        """
