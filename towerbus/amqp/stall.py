"""Notices that a consumer of the log is given nothing although there is something.

RabbitMQ 3.10 gives one that retention has overtaken now and then nothing more, whatever its credit, and says nothing
(docs/decisions/0003). So whenever nothing has come for a while, the log's end is looked up, by another consumer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.amqp.stream import PATIENCE, StreamSilent
from towerbus.log.following import Start
from towerbus.log.sequence import Stored

EVERY = 1.0
"""Seconds between two looks at whether something has come. What is found in the log is given so long to come, too."""
_log = Logger()
_failures_logged = _log.failureHandler("stall_watch_failed")


class StallWatch:
    """Watches over one consumer, from now on until `stop`.

    Args:
        clock: Calls later, and tells the time.
        start: Where the consumer begins.
        end: Looks up the last record of the log.
        paused: Tells whether it is us who take nothing.
        stalled: Called once, with the reason, when nothing comes of what is there, or nobody can say what is there.
    """

    def __init__(
        self,
        clock: Any,
        start: Start,
        *,
        end: Callable[[], Deferred[Stored]],
        paused: Callable[[], bool],
        stalled: Callable[[Failure], object],
    ) -> None:
        self._clock = clock
        self._next = start
        self._end = end
        self._paused = paused
        self._stalled = stalled
        self._heard = self._ahead = False
        self._since = clock.seconds()
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self._turn()))
        self._loop.clock = clock
        self._loop.start(EVERY, now=False)

    def heard(self, offset: int) -> None:
        """A record has come."""
        self._next = offset + 1
        self._heard = True

    def stop(self) -> None:
        """Watch no more."""
        if self._loop.running:
            self._loop.stop()

    async def _turn(self) -> None:
        with _failures_logged:
            now = self._clock.seconds()
            if self._heard or self._paused():
                self._heard = self._ahead = False
                self._since = now
            elif self._ahead:
                self._tell(StreamSilent(f"the log has records from {self._next} on, and nothing comes of them"))
            elif now - self._since >= PATIENCE:
                self._since = now
                await self._look()

    async def _look(self) -> None:
        start = self._next
        try:
            end = await self._end()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            if self._loop.running and not self._heard:
                self._tell(error)
        else:
            # It may have been written just now, and be on its way.
            self._ahead = start == "first" or end.offset >= start

    def _tell(self, reason: Exception) -> None:
        self.stop()
        self._stalled(Failure(reason))
