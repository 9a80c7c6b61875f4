"""How much is done for those who catch up, and how much was. Values."""

from __future__ import annotations

import msgspec

SLICE = 0.003
"""Seconds that are worked without a pause."""
TICK = 0.02
"""Seconds between looks at what can't go on now."""


class Limits(msgspec.Struct, frozen=True):
    """How much may be done.

    Attributes:
        room: Bytes that may wait for one client before it has to drain: some part of its outbox.
        piece: Bytes that a client is sent at a time.
        readings: Readings of the log at the same time.
        gather: Seconds that a client waits for others to share a reading with.
        hurry: Seconds after which one that waits gets a reading of its own, if there may be one more.
        grace: Seconds that a position may be past the end of the log: another server may have read further.
        patience: Seconds that a client waits for a log that can't be read.
    """

    room: int = 512 * 1024
    piece: int = 128 * 1024
    readings: int = 4
    gather: float = 0.02
    hurry: float = 0.5
    grace: float = 2.0
    patience: float = 30.0


class Counts:
    """What has happened so far, for the metrics.

    Attributes:
        begun: Clients that came back.
        recovered: Those of them that got everything.
        lost: Those that were told at once that something is lost.
        unavailable: Those that were sent away because the log could not be read.
        readings: Times that the log was read for those whose position was older than the tail.
    """

    def __init__(self) -> None:
        self.begun = self.recovered = self.lost = self.unavailable = self.readings = 0
