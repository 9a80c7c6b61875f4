"""The seams inside the room: where those who catch up come from, and where they go."""

from __future__ import annotations

from typing import Protocol, TypeVar

from twisted.python.failure import Failure

from towerbus.catchup.limits import Counts, Limits
from towerbus.catchup.member import Line, Member
from towerbus.errors import PositionLostError
from towerbus.positions import Position

R_contra = TypeVar("R_contra", contravariant=True)


class Station(Protocol):
    """Where members go, and what they may have: the room, as the readings see it.

    Attributes:
        counts: What has happened so far.
    """

    counts: Counts

    @property
    def limits(self) -> Limits:
        """How much may be done."""

    @property
    def is_crowded(self) -> bool:
        """Whether there are members of whom it is not known yet where they go."""

    def flush(self) -> Position:
        """Send everybody what has come; the place up to which that is."""

    def ready(self, member: Member) -> None:
        """Take a member that has to be told of a loss, or of which the tail has the rest."""

    def drain(self, member: Member) -> None:
        """Take a member that has to drain before it can be sent more."""

    def recovered(self, member: Member) -> None:
        """Tell a member, once, that its place is there."""

    def unavailable(self, member: Member, reason: str) -> None:
        """Send a member away: the log can't be read."""

    def wake(self, *, soon: bool = False) -> None:
        """Let the readings go on in the next turn, or within a tick."""


class Owner(Protocol[R_contra]):
    """Who has the readings.

    Attributes:
        line: Those who wait until a reading comes by.
    """

    line: Line

    def read(self) -> None:
        """The log can be read, and has answered."""

    def lost(self, reading: R_contra, error: PositionLostError) -> None:
        """The log does not have what a reading wants next."""

    def unreadable(self, reading: R_contra, failure: Failure) -> None:
        """The log can't be read now."""
