"""The drain: a server that stops lets go of its clients so that none of them misses it, and in bounded time.

What can be told when to come back (`towerbus.v1`) is told at once, each client another time within the spread, so that
they don't all come in the same moment. The others come back when they please: they are let go of in groups, over the
same time. Events go on being delivered until a client's own end, and a client that comes in meanwhile is sent on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from towerbus.wire.factory import EventsFactory
    from towerbus.wire.websocket import EventsProtocol

SPREAD = 5.0
"""Seconds over which clients are let go of, where nothing else is said."""
STEP = 0.1
"""Seconds between two groups."""
LEAST = 10
"""Clients in a group, at the least: a handful is not kept waiting."""
SLICE = 1000
"""Clients that are let go of in one step, at the most: the others' events go out between."""
PATIENCE = 2.0
"""Seconds for the last clients to answer, after which they are cut off."""
STOPPING = "the server stops, and lets go of its clients"
"""What `/readyz` says meanwhile."""
_log = Logger()


class Drain(Service):
    """Lets go of the clients when it is stopped. Nothing may be listening any more by then.

    Args:
        clock: Calls later, and tells the time (IReactorTime).
        factory: Whose connections they are.
        spread: Seconds over which they are let go of; 0 for as fast as it goes.
        patience: Seconds that the last ones get to answer.

    Attributes:
        active: Whether it has begun.
    """

    def __init__(
        self, clock: Any, factory: EventsFactory, spread: float = SPREAD, *, patience: float = PATIENCE
    ) -> None:
        self.active = False
        self._clock = clock
        self._factory = factory
        self._spread = spread
        self._patience = patience
        self._told: set[EventsProtocol] = set()
        self._until = 0.0
        self._cut_at: float | None = None
        self._loop = LoopingCall(self._step)
        self._loop.clock = clock

    def stopService(self) -> Deferred[None]:
        """Let go of all, and wait until they are gone, or for the patience to end."""
        super().stopService()
        self.active = True
        begun = self._clock.seconds()
        self._until, count = begun + self._spread, len(self._factory.wires)
        if count:
            _log.info("drain_begun: {clients} clients over {seconds:g} s", clients=count, seconds=self._spread)
        return self._loop.start(STEP).addCallback(self._over, begun, count)

    def _step(self) -> None:
        now = self._clock.seconds()
        self._told &= self._factory.wires
        waiting = [wire for wire in self._factory.wires if wire not in self._told]
        tellable = [wire for wire in waiting if _can_be_told(wire)][:SLICE]
        for wire in tellable:
            self._let_go(wire, random.uniform(0, self._spread))  # noqa: S311 - no secret
        # Those in their handshake have no session yet; they get until the end for it.
        others = [
            wire for wire in waiting if not _can_be_told(wire) and (wire.session is not None or now >= self._until)
        ]
        steps = math.floor((self._until - now) / STEP) + 1
        group = max(LEAST, math.ceil(len(others) / steps)) if steps > 0 else SLICE
        for wire in others[: min(group, SLICE - len(tellable))]:
            self._let_go(wire, 0.0)
        self._finish(now)

    def _let_go(self, wire: EventsProtocol, after: float) -> None:
        self._told.add(wire)
        wire.restart(after)

    def _finish(self, now: float) -> None:
        """End when all are gone; cut off who does not go."""
        wires = self._factory.wires
        if not wires:
            self._loop.stop()
        elif len(self._told) < len(wires):
            self._cut_at = None
        elif self._cut_at is None:
            self._cut_at = now + self._patience
        elif now >= self._cut_at:
            _log.warn("drain_cut: {clients} clients did not answer the close", clients=len(wires))
            _abort(tuple(wires))
            self._loop.stop()

    def _over(self, _: object, begun: float, count: int) -> None:
        if count:
            _log.info(
                "drained: {clients} clients in {seconds:.1f} s", clients=count, seconds=self._clock.seconds() - begun
            )


def _can_be_told(wire: EventsProtocol) -> bool:
    """Whether the client's dialect has words for when to come back."""
    return wire.session is not None and wire.spoken.dialect.restarting(0).message is not None


def _abort(wires: Iterable[EventsProtocol]) -> None:
    for wire in wires:
        wire.transport.abortConnection()
