"""The canary: a server sends one through the whole bus each period, and says so when it does not come back.

A server that looks healthy while nothing flows is the commonest fault of systems like this one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.errors import NotConfirmed
from towerbus.event import Event, new_id
from towerbus.intake.interface import IIntake
from towerbus.intake.messages import INTERNAL
from towerbus.ops.freshness import Freshness
from towerbus.topics import topic

LOOKS = 4
"""How often in a period is looked."""
STILL = 2.5
"""Seconds without a look, at the least, after which something is wrong with this process."""
_log = Logger()
_failures_logged = _log.failureHandler("canary_failed")
_read = msgspec.json.Decoder(dict[str, int]).decode


class Hop(NamedTuple):
    """Where the way through the bus is broken.

    Attributes:
        name: `broker`, `intake`, `worker`, `log`, or `canary` where none has come back since the start.
        reason: For a person.
    """

    name: str
    reason: str


class WatchedLog(Protocol):
    """What is asked of the log."""

    on_internal: Callable[[Sequence[Event]], None] | None

    @property
    def missing(self) -> str:
        """Why there is nothing to read yet; empty where there is."""

    @property
    def trouble(self) -> str:
        """Why it is not being read; empty where it is."""

    @property
    def paused(self) -> bool:
        """Whether those who get its records have asked to wait."""

    def behind(self) -> Deferred[int]:
        """How far the log's end is ahead of what was read."""


class Canary(Service):
    """Sends canaries, and watches for them.

    Args:
        intake: Where they go in.
        log: Where they come out.
        clock: Calls later (IReactorTime).
        period: Seconds between two of them.
        stale: Called once with the time since when nothing may have come through, in seconds since the epoch of Unix.
        fresh: Called once when all comes through again.
        seconds: Tells the time, in seconds that never jump.
        now: Tells the time of Unix.
    """

    def __init__(
        self,
        intake: IIntake,
        log: WatchedLog,
        clock: Any,
        period: float,
        *,
        stale: Callable[[float], None],
        fresh: Callable[[], None],
        seconds: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.freshness = Freshness(period, seconds())
        self._intake = intake
        self._log = log
        self._stale, self._fresh = stale, fresh
        self._seconds, self._now = seconds, now
        self._topic = topic(INTERNAL, f"canary.{secrets.token_hex(8)}")
        self._loop = LoopingCall(self._turn)
        self._loop.clock = clock
        self._told: Hop | None = None
        self._asked_at: float | None = None
        self._ahead: int | None = 0

    @property
    def age(self) -> float:
        """Seconds for which nothing is known to have come through."""
        return self.freshness.age(self._seconds())

    @property
    def ahead(self) -> int:
        """How far the log's end is ahead of what was read, as it was looked up last, while stale."""
        return (self._ahead or 0) if self.freshness.stale else 0

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self.freshness = Freshness(self.freshness.period, self._seconds())
        self._log.on_internal = self._came
        self._loop.start(self.freshness.period / LOOKS).addErrback(_unexpected)

    def stopService(self) -> None:
        """Send no more."""
        super().stopService()
        self._log.on_internal = None
        self._loop.stop()

    def broken(self) -> Hop | None:
        """Where the way is broken, as far as is known; None where it is not."""
        unseen = self._seconds() - self.freshness.looked_at
        if unseen > max(self.freshness.limit, STILL):
            return Hop("canary", f"none was sent for {unseen:.0f} s: the timers of this process stand still")
        if not self.freshness.stale and self.freshness.proven:
            return None
        return self._connecting() or self._emitting() or self._reading()

    def _connecting(self) -> Hop | None:
        if self._log.missing:
            return Hop("log", self._log.missing)
        if self._log.trouble:
            return Hop("broker", self._log.trouble)
        if not self.freshness.stale:
            return Hop("canary", "the first one has not come back yet")
        asked = 0.0 if self._asked_at is None else self._seconds() - self._asked_at
        return Hop("broker", f"it has not answered for {asked:.0f} s") if asked > self.freshness.period else None

    def _emitting(self) -> Hop | None:
        if self.freshness.refusal:
            return Hop("intake", self.freshness.refusal)
        unanswered = self.freshness.unanswered(self._seconds())
        if unanswered > self.freshness.period:
            return Hop("intake", f"it has confirmed nothing for {unanswered:.0f} s")
        return None

    def _reading(self) -> Hop:
        if self._log.paused:
            return Hop("log", "it is not read on: what was read is not passed on to the clients")
        if self._ahead is None:
            return Hop("log", "its end can't be looked up")
        if self._ahead:
            return Hop("log", f"it is {self._ahead} records ahead of what was read")
        return Hop("worker", "what the intake has confirmed does not come into the log: does a towerbus-worker run?")

    def _turn(self) -> None:
        with _failures_logged:
            now = self._seconds()
            self.freshness.look(now)
            number = self.freshness.due(now)
            if number is not None:
                self._emit(number)
            self._look_after()

    def _emit(self, number: int) -> None:
        event = Event(self._topic, b'{"n":%d}' % number, new_id(), self._now())
        answer = self._intake.emit([event])
        answer.addCallbacks(lambda _: self.freshness.taken(number), self._refused, errbackArgs=(number,))
        answer.addErrback(_unexpected)

    def _refused(self, failure: Failure, number: int) -> None:
        if not failure.check(NotConfirmed):
            _log.failure("canary_failed", failure)
        self.freshness.refused(number, failure.getErrorMessage() or "it failed")

    def _came(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.topic == self._topic:
                with _failures_logged:
                    self.freshness.returned(_read(event.payload)["n"], self._seconds())
                    self._look_after()

    def _look_after(self) -> None:
        """Tell what has changed, and find out more while it is stale."""
        if self.freshness.stale:
            self._ask()
            self._tell(self.broken())
        elif self._told is not None:
            self._told = None
            _log.info("bus_fresh: events come through again")
            self._fresh()

    def _tell(self, hop: Hop | None) -> None:
        if hop is None or (self._told is not None and hop.name == self._told.name):
            return
        before, self._told = self._told, hop
        age = self.age
        _log.error(
            "bus_stale: nothing is known to have come through for {age:.1f} s: {hop}: {reason}",
            age=age,
            hop=hop.name,
            reason=hop.reason,
        )
        if before is None:
            self._stale(self._now() - age)

    def _ask(self) -> None:
        """Look up how far the log is ahead; one look at a time."""
        if self._asked_at is None and not self._log.trouble:
            self._asked_at = self._seconds()
            self._log.behind().addBoth(self._answered)

    def _answered(self, answer: int | Failure) -> None:
        self._asked_at = None
        self._ahead = None if isinstance(answer, Failure) else answer


def _unexpected(failure: Failure) -> None:
    _log.failure("canary_failed", failure)
