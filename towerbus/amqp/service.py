"""Keeps a session with the broker: connects, runs it, and comes back when it ends, for as long as the service runs.

    WAITING --pause over--> CONNECTING --session says so--> ESTABLISHED
       ^------------- lost, refused, or ended ---------------|

Twisted's ClientService leaks connections when pika's set-up fails, so this is a loop of our own.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from towerbus.amqp.connection import Connection, connect
from towerbus.amqp.errors import ChannelClosed, Trouble, trouble
from towerbus.amqp.url import Broker

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 3.0
ENDING = "the connection is ending"
"""The trouble between a session and the next attempt, as long as nothing more is known."""
AGAIN = 60.0
"""Seconds after which the same trouble is logged once more."""
_log = Logger()


class State(enum.StrEnum):
    """Where it is."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    ESTABLISHED = "established"
    WAITING = "waiting"


Session = Callable[[Connection, Callable[[], None]], Coroutine[Any, Any, None]]
"""Runs on one connection until it ends, and tells by its second argument that it is in order. It is cancelled when the
connection is lost, or the broker closes a vital channel. Whatever it raises ends the connection; so does its return."""


class AmqpService(Service):
    """Keeps one session.

    Args:
        broker: Where.
        name: What the session is for: in the log, and in the broker's list of connections.
        reactor: Connects, and tells the time.
        session: What is done on each connection.
        refused: Called with the text when the broker refuses us in a way that somebody must mend (a wrong password, a
            missing virtual host, an object of another kind). It is tried again all the same.
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        reactor: Any,
        session: Session,
        *,
        refused: Callable[[str], None] | None = None,
    ) -> None:
        self.setName(name)
        self._broker = broker
        self._what = name
        self._reactor = reactor
        self._session = session
        self._refused = refused
        self._running: Deferred[None] = succeed(None)
        self._pause = FIRST_PAUSE
        self.state = State.STOPPED
        self.trouble = ""
        """Why there is no session; empty while there is one."""
        self.blocked = ""
        """Why the broker takes nothing from us now (its alarm); empty while it does."""
        self.reconnects = 0
        """How often a session that was established ended."""
        self.changed: Callable[[], None] | None = None
        """Called when `state`, `trouble` or `blocked` has changed."""
        self._told = ""
        self._told_at = 0.0

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self.trouble = "not connected yet"
        self._running = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """End the session and its connection, in bounded time."""
        super().stopService()
        if not self._running.called:
            # Not from here: a session that is just running would not notice it.
            self._reactor.callLater(0, self._running.cancel)
        return self._running

    async def _run(self) -> None:
        while self.running:
            self._to(State.CONNECTING)
            try:
                await self._once()
                found = Trouble("the session ended", refused=False)
            except CancelledError:
                found = Trouble("stopped", refused=False)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
                found = trouble(error, self._broker)
            if not self.running:
                break
            await self._wait(found)
        # A connection attempt that was cancelled has a call left for the next turn.
        with suppress(CancelledError):
            await deferLater(self._reactor, 0, lambda: None)
        self._to(State.STOPPED)

    def _to(self, state: State) -> None:
        self.state = state
        self._tell()

    def _tell(self) -> None:
        if self.changed is None:
            return
        try:
            self.changed()
        except Exception:  # noqa: BLE001 - it must not end the loop that keeps the connection
            _log.failure("amqp_failed: {what}", what=self._what)

    async def _once(self) -> None:
        connection = await connect(self._broker, f"towerbus {self._what}", self._reactor)
        connection.on_blocked = self._was_blocked
        session = Deferred.fromCoroutine(self._session(connection, self._established))
        reasons: list[BaseException] = []

        def broken(reason: BaseException) -> None:
            reasons.append(reason)
            session.cancel()

        connection.on_broken = broken
        error: BaseException | None = None
        try:
            await session
        except Exception as found:  # noqa: BLE001 - it is passed on
            error = found
        if self.state is State.ESTABLISHED:
            self.reconnects += 1
        # A cancellation, or a channel that the broker did not close, is only what the session saw of it.
        direct = not isinstance(error, CancelledError | ChannelClosed) or bool(getattr(error, "code", 0))
        if not direct and reasons:
            error, direct = reasons[0], True
        self.trouble = trouble(error, self._broker).text if direct and error is not None else ENDING
        self.blocked = ""
        self._to(State.WAITING)
        reason = await _ended(connection)
        if error is not None:
            raise error if direct else reason

    def _established(self) -> None:
        self.trouble = self._told = ""
        self._pause = FIRST_PAUSE
        self._to(State.ESTABLISHED)
        _log.info("amqp_established: {what} with {broker}", what=self._what, broker=str(self._broker))

    async def _wait(self, found: Trouble) -> None:
        self.trouble = found.text
        self._to(State.WAITING)
        if found.refused:
            self._pause = LONGEST_PAUSE
        pause = self._pause * random.uniform(0.5, 1)  # noqa: S311 - jitter
        self._pause = min(self._pause * 1.6, LONGEST_PAUSE)
        self._lost(found.text)
        _log.debug("amqp_retry: {what}: trying again in {pause:.1f} s", what=self._what, pause=pause)
        if found.refused and self._refused is not None:
            self._refused(found.text)
        try:
            await deferLater(self._reactor, pause, lambda: None)
        except CancelledError:
            return

    def _lost(self, text: str) -> None:
        """Log a trouble, and the same one not at each attempt."""
        now = self._reactor.seconds()
        if text != self._told or now - self._told_at >= AGAIN:
            self._told, self._told_at = text, now
            _log.warn(
                "amqp_lost: {what}: {reason}; it is tried again for as long as it takes", what=self._what, reason=text
            )

    def _was_blocked(self, blocked: bool, reason: str) -> None:  # noqa: FBT001
        self.blocked = reason or "an alarm" if blocked else ""
        if blocked:
            _log.warn("amqp_blocked: {what}: the broker takes nothing: {reason}", what=self._what, reason=reason)
        else:
            _log.info("amqp_unblocked: {what}", what=self._what)
        self._tell()


async def _ended(connection: Connection) -> BaseException:
    """End a connection and wait until it is gone, which is bounded; being stopped meanwhile only makes it quicker."""
    while True:
        with suppress(CancelledError):
            return await connection.end()
