"""What a worker counts, for whoever shows it. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.StrEnum):
    """What a worker is now."""

    WAITING = "waiting"
    """It has no session with the broker."""
    STANDBY = "standby"
    """It reads the log along; another worker has the intake, or nobody has anything for it."""
    STARTING = "starting"
    """It has the intake, and finds out what is in the log."""
    ACTIVE = "active"
    """It has the intake and writes the log."""


@dataclass
class Counters:
    """Counted since the process began.

    Attributes:
        role: What the worker is now.
        term: Of its last fence; 0 while it wrote none.
        epoch: Of the log; empty while it is not known.
        records: Written to the log; fences are not counted.
        events: Written to the log.
        repeats: Events that were in the log already, and were not written again.
        dead: Messages that could not be taken, and went to the dead queue.
        voided: Records of other workers that are void.
        last_record: When the last record was confirmed, in seconds since the epoch of Unix; None while there was none.
        in_hand: Bytes of messages that were delivered and are not settled.
    """

    role: Role = Role.WAITING
    term: int = 0
    epoch: str = ""
    records: int = 0
    events: int = 0
    repeats: int = 0
    dead: int = 0
    voided: int = 0
    last_record: float | None = None
    in_hand: int = 0
