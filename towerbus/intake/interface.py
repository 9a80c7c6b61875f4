"""The seam between producers and the bus."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Interface

from towerbus.event import Event


class IIntake(Interface):
    """Where checked events go in."""

    def emit(events: Sequence[Event]) -> Deferred[None]:
        """Put events in, in this order.

        Returns:
            A Deferred that fires when every one of them is confirmed: it is in the log, or in an intake that survives
            the death of any process. An event whose id is in the log already counts as confirmed and is not repeated.
            It fails with `BusUnavailable` when none of them was taken, and with `NotConfirmed` when that is in doubt.
        """
