"""The worker's service: keeps a session with the broker, and hands the work over when it is stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from towerbus.amqp.connection import Connection
from towerbus.amqp.service import AmqpService
from towerbus.amqp.topology import Names, limits
from towerbus.amqp.url import Broker, of_bus
from towerbus.amqp.worker.ends import Lighter, TooHeavy
from towerbus.amqp.worker.session import PREFETCH, STEP, Session, Setup
from towerbus.config import Settings
from towerbus.doctor import findings
from towerbus.giving_up import give_up
from towerbus.ops.notify import Condition, Notify, Supervised
from towerbus.ops.reload import Reload
from towerbus.options import WORKER
from towerbus.worker.counters import Counters

FINISHES = 5.0
"""Seconds that what is in flight has to be confirmed when the worker is stopped."""
SOON = 10.0
"""Seconds; sessions that end sooner, one after the other, are begun ever more slowly."""
SOME = 8
"""How many such sessions may follow each other at once: a broker that has just started needs several."""
LONGEST = 5.0
"""Seconds before such a session, at the most."""

_log = Logger()


class WorkerService(AmqpService):
    """Orders the intake into the log while it runs, or stands by while another does.

    Args:
        broker: Where.
        setup: What to do.
        reactor: Connects, and tells the time.
        hopeless: Called with the text when the broker refuses us, and never let us in before.
    """

    def __init__(self, broker: Broker, setup: Setup, reactor: Any, *, hopeless: Callable[[str], None]) -> None:
        super().__init__(broker, "worker", reactor, self._work, refused=self._was_refused)
        self.counters = Counters()
        """What it did, for whoever shows it; `trouble` and `blocked` say why it does nothing."""
        self._clock = reactor
        self._setup = setup
        self._hopeless = hopeless
        self._current: Session | None = None
        self._ever = False
        self._soon = 0

    def stopService(self) -> Deferred[None]:
        """Let what is in flight be confirmed and acknowledged, and leave; another worker goes on from there."""
        if self._current is None:
            return super().stopService()
        Service.stopService(self)
        self._current.finish()
        return self._running.addTimeout(FINISHES, self._clock, onTimeoutCancel=_late)

    def condition(self) -> Condition:
        """How it is. Its session ends by itself when the broker does not confirm what it should: see `session.py`."""
        if self.trouble or self.blocked:
            return Condition(f"broker: {self.trouble or self.blocked}", "")
        counted = self.counters
        return Condition("", f"{counted.role}, term {counted.term}, {counted.events} events written")

    async def _work(self, connection: Connection, established: Callable[[], None]) -> None:
        """One session."""
        if self._soon > SOME:
            pause = min(LONGEST, 0.1 * 2 ** (self._soon - SOME))
            _log.warn(
                "worker_slowed: {count} sessions ended soon; waiting {pause:.1f} s", count=self._soon, pause=pause
            )
            await deferLater(self._clock, pause, lambda: None)

        def ready() -> None:
            self._ever = True
            established()

        begun = self._clock.seconds()
        self._current = Session(connection, self._setup, self.counters, self._clock)
        try:
            await self._current.run(ready)
        except TooHeavy:
            self._setup = self._setup._replace(prefetch=max(1, self._setup.prefetch // STEP))
            raise
        except Lighter:
            self._setup = self._setup._replace(prefetch=min(PREFETCH, self._setup.prefetch * STEP))
            raise
        finally:
            self._current = None
            self._soon = self._soon + 1 if self._clock.seconds() - begun < SOON else 0

    def _was_refused(self, text: str) -> None:
        if not self._ever:
            self._hopeless(text)


def _late(result: Any, seconds: float) -> Any:
    _log.warn("worker_unfinished: what was in flight is not confirmed after {seconds:g} s", seconds=seconds)
    return result


def worker(settings: Settings, reactor: Any) -> IService:
    """The worker: `twistd towerbus-worker`.

    Raises:
        ConfigError: The settings can't be carried out.
    """
    broker = of_bus(settings.bus)
    held = limits(settings)
    for found in findings.segments(held.log_segment_bytes, held.log_max_bytes):
        _log.warn("log_small: {text}: {mend}", text=found.text, mend=found.mend)
    setup = Setup(Names(broker.prefix), held, record_pause=settings.record_pause, max_payload=settings.max_payload)

    def hopeless(text: str) -> None:
        give_up(reactor, f"{WORKER}: {text}")

    ordering = WorkerService(broker, setup, reactor, hopeless=hopeless)
    notify = Notify(os.environ)
    parent = MultiService()
    for service in (ordering, Reload(reactor, notify, ()), Supervised(reactor, notify, ordering.condition)):
        service.setServiceParent(parent)
    return parent
