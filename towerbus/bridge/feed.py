"""What a source forwards: mapped, put on the bus in order, and acknowledged when it is confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from towerbus.bridge.interface import IFeed
from towerbus.bridge.mapping import Mapping
from towerbus.bridge.message import Message
from towerbus.bridge.standing import Standing
from towerbus.errors import NotConfirmed, PeerError
from towerbus.event import Event
from towerbus.intake.interface import IIntake

PIECE = 256
"""Messages that are mapped in one turn, at the most: as many events as the intake takes in one message."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before events that were not confirmed are put on the bus again."""

_log = Logger()


class Graves(Protocol):
    """The dead queue."""

    def bury(self, message: Message, reason: str, bridge: str) -> Deferred[None]:
        """Put a message there. Fires when it is confirmed; waits while the bus is away, and never fails."""


@implementer(IFeed)
class Feed:
    """The bus's side of one source.

    Args:
        standing: How the bridge is.
        mapping: Makes events of messages.
        intake: Takes the events.
        graves: Take what can't be mapped.
        reactor: Calls later.
    """

    def __init__(self, standing: Standing, mapping: Mapping, intake: IIntake, graves: Graves, reactor: Any) -> None:
        self._standing = standing
        self._mapping = mapping
        self._intake = intake
        self._graves = graves
        self._reactor = reactor
        self._busy = False

    def established(self) -> None:
        """The foreign system answers."""
        self._standing.established()

    def trouble(self, text: str) -> None:
        """Something is wrong while the life goes on."""
        self._standing.troubled(text)

    def forward(self, messages: Sequence[Message]) -> Deferred[None]:
        """Map messages to events and put these on the bus, in this order."""
        if self._busy:
            raise RuntimeError("a source forwards one batch after the other")
        return Deferred.fromCoroutine(self._forward(messages))

    def bury(self, message: Message, reason: str) -> Deferred[None]:
        """Put a message in the dead queue."""
        self._standing.counts.messages += 1
        self._standing.counts.dead += 1
        return self._graves.bury(message, reason, self._standing.title.name)

    async def _forward(self, messages: Sequence[Message]) -> None:
        self._busy = True
        try:
            for begin in range(0, len(messages), PIECE):
                await self._piece(messages[begin : begin + PIECE])
        finally:
            self._busy = False

    async def _piece(self, messages: Sequence[Message]) -> None:
        events, counts = [], self._standing.counts
        for message in messages:
            try:
                made = self._mapping.map(message)
            except PeerError as error:
                await self.bury(message, str(error))
                continue
            except Exception as error:  # noqa: BLE001 - one message must not stop the others, whatever is in it
                _log.failure("mapping_broken: {name}", name=self._standing.title.name)
                await self.bury(message, f"an internal error of the mapping's: {error!r}")
                continue
            events += made
            counts.messages += 1
            counts.filtered += not made
        if events:
            await self._emit(events)
            counts.events += len(events)

    async def _emit(self, events: Sequence[Event]) -> None:
        """Emit until it is confirmed, always with the same ids: the worker drops what it has seen."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._intake.emit(events)
            except NotConfirmed:
                # Why is told by the intake itself, for all bridges.
                await deferLater(self._reactor, pause, lambda: None)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return
