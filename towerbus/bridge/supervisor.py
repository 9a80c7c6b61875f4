"""Supervises one bridge: gives it one life after the other, for as long as the process runs.

    WAITING --pause over--> STARTING --established--> CARRYING
       ^------------------ raised, or returned ----------|

A bridge that fails is told, waits longer each time, and harms no other: each has its own supervisor.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.logger import Logger

from towerbus.bridge.standing import Standing, State
from towerbus.errors import TowerbusError

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds before the next life, at first and at the most."""
STEADY = 10.0
"""Seconds that a life has to last before the pauses begin anew: one that answers and fails at once is not well."""
ENDS = 5.0
"""Seconds that a life has to end when the bridge is stopped."""
_EXPECTED = (TowerbusError, OSError, CancelledError, TimedOut)

_log = Logger()


class Supervisor(Service):
    """Runs a bridge.

    Args:
        standing: How it is; told of every change.
        live: Begins a life: `run` of a source or of a sink, with the bus's side in it.
        reactor: Calls later.
    """

    def __init__(self, standing: Standing, live: Callable[[], Coroutine[Any, Any, None]], reactor: Any) -> None:
        self.setName(f"bridge {standing.title.name}")
        self.standing = standing
        self._live = live
        self._reactor = reactor
        self._pause = FIRST_PAUSE
        self._running: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._running = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """End the life, in bounded time."""
        super().stopService()
        ended: Deferred[None] = Deferred()
        self._running.addBoth(lambda _: None if ended.called else ended.callback(None))
        if not ended.called:
            # Not from here: a life that is just running would not notice it.
            self._reactor.callLater(0, self._running.cancel)
            ended.addTimeout(ENDS, self._reactor, onTimeoutCancel=self._late)
        return ended

    async def _run(self) -> None:
        while self.running:
            self.standing.begun()
            begun = self._reactor.seconds()
            try:
                await self._live()
                reason = "it ended without a word"
            except CancelledError:
                reason = "it was cancelled"
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
                reason = self._reason(error)
            if not self.running:
                break
            await self._wait(reason, self._reactor.seconds() - begun)
        self.standing.stopped()

    def _reason(self, error: Exception) -> str:
        """Why a life ended. What nobody has expected goes to the log whole: it may be a fault of ours."""
        if not isinstance(error, _EXPECTED):
            _log.failure("bridge_broken: {name}", name=self.standing.title.name)
        text = str(error)
        return text if isinstance(error, TowerbusError) and text else f"{type(error).__name__}: {text}".rstrip(": ")

    async def _wait(self, reason: str, lived: float) -> None:
        if self.standing.state is State.CARRYING and lived >= STEADY:
            self._pause = FIRST_PAUSE
        pause = self._pause * random.uniform(0.5, 1)  # noqa: S311 - jitter
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self.standing.failed(reason, pause)
        try:
            await deferLater(self._reactor, pause, lambda: None)
        except CancelledError:
            return

    def _late(self, _: object, seconds: float) -> None:
        _log.warn("bridge_unfinished: {name} has not ended in {seconds:g} s", name=self.name, seconds=seconds)
        # The process does not wait for it any more; what it still does, it may do until the process ends.
        self._running.cancel()
