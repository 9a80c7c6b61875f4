"""The intake over AMQP, for servers and for Twisted programs that emit.

What is at hand in one reactor turn is packed into one message and published to the intake's queue, mandatory and
persistent. One message is in flight at a time (`intake/line.py` says why); what was in doubt when a connection went is
sent again on the next, with the same ids, and the worker drops what it has seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from zope.interface import implementer

from towerbus.amqp.channel import Channel
from towerbus.amqp.connection import Connection, tls_options
from towerbus.amqp.errors import Unpublished
from towerbus.amqp.properties import EVENTS
from towerbus.amqp.service import AmqpService, State
from towerbus.amqp.topology import INTAKE, Names, check_intake
from towerbus.amqp.url import Broker
from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.intake.interface import IIntake
from towerbus.intake.line import FULL, MAX_WAITING, Call, Line, Message, Outcome, ids, unanswered
from towerbus.intake.messages import pack

TIMEOUT = 10.0
GRACE = 2.0
STALLED = 5.0
"""Seconds without an answer to a message, after which the connection is given up: a new one may do better."""
FAREWELL = 2.0
"""Seconds that an end of ours waits for what stands in line."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before a message that the broker did not take is sent again."""


@implementer(IIntake)
class AmqpIntake(MultiService):
    """Puts events in the broker's intake while it runs.

    Args:
        broker: Where.
        reactor: Connects, and tells the time.
        timeout: Seconds that an emit may take, with all that is tried again.
        grace: Seconds that an emit waits while nothing can be published: there is no session, or the broker is blocked
            by an alarm. Then it fails with `BusUnavailable`.
        patient: Whether an emit that the broker refuses (a full intake) is tried again until its time is over. A
            server is not patient: its producers are to hear of it, and they try again.
        max_bytes: Bytes that may stand in line, at the most; beyond that an emit fails at once.
        name: What the connection is for: in the log, and in the broker's list of connections.
        refused: As `AmqpService` has it.

    Raises:
        ConfigError: A certificate file can't be used.
    """

    def __init__(
        self,
        broker: Broker,
        reactor: Any,
        *,
        timeout: float = TIMEOUT,
        grace: float = GRACE,
        patient: bool = False,
        max_bytes: int = MAX_WAITING,
        name: str = "emit",
        refused: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        if broker.tls:
            tls_options(broker)
        self.bus = AmqpService(broker, name, reactor, self._session, refused=self._was_refused)
        """The connection, with its state, for health."""
        self.bus.changed = self._changed
        self.bus.setServiceParent(self)
        self._names = Names(broker.prefix)
        self._reactor = reactor
        self._refused = refused
        self._timeout = timeout
        self._grace = min(grace, timeout)
        self._patient = patient
        self._line = Line(max_bytes)
        self._ever = False
        self._wake: Deferred[None] | None = None
        self._drained: Deferred[None] | None = None
        self._troubled: float | None = None
        self._answer: Deferred[None] = succeed(None)
        self._sent = 0.0
        self._refusal = self._before = ""
        self._blocked = False
        self._pause = FIRST_PAUSE
        self._alarm: IDelayedCall | None = None
        self._telling: IDelayedCall | None = None
        self._outcomes: list[Outcome] = []

    @property
    def trouble(self) -> str:
        """Why nothing can be published now; empty where it can."""
        if self.bus.state is not State.ESTABLISHED:
            return self.bus.trouble or "not connected"
        if self.bus.blocked:
            return f"the broker takes nothing: {self.bus.blocked}"
        return self._refusal

    def emit(self, events: Sequence[Event]) -> Deferred[None]:
        """Put events in, in this order. Cancelling it ends the trying; the events may have been taken by then."""
        if not events:
            return succeed(None)
        if not self.running:
            return fail(BusUnavailable("the intake is not running", ids(events)))

        def told(error: NotConfirmed | None) -> None:
            if done.called:
                # It was cancelled between the outcome and its telling.
                return
            if error is None:
                done.callback(None)
            else:
                done.errback(error)

        try:
            call = self._line.add(events, self._reactor.seconds(), told)
        except BusUnavailable as error:
            return fail(error)
        done: Deferred[None] = Deferred(lambda _: self._withdraw(call))
        if not self.bus.blocked:
            self._rouse()
        if self._troubled is not None or self._alarm is None or not self._alarm.active():
            self._set_alarm()
        return done

    def stopService(self) -> Deferred[None]:
        """Publish what stands in line, in bounded time, and end the connection."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._line.oldest() is not None and not self.trouble:
            self._drained = Deferred()
            with suppress(TimedOut, CancelledError):
                await self._drained.addTimeout(FAREWELL, self._reactor)
            self._drained = None
        await maybeDeferred(super().stopService)
        self._tell(self._line.refuse("not confirmed before the intake was stopped"))
        self._tell_now()
        for timer in (self._alarm, self._telling):
            if timer is not None and timer.active():
                timer.cancel()

    async def _session(self, connection: Connection, established: Callable[[], None]) -> None:
        channel = await connection.channel()
        await channel.confirm()
        await check_intake(channel, self._names)
        self._ever = True
        established()
        try:
            while True:
                message = None if self.bus.blocked else self._line.take()
                if message is not None:
                    await self._publish(channel, message)
                else:
                    self._wake = Deferred()
                    await self._wake
        finally:
            self._wake = None
            self._line.lost()

    async def _publish(self, channel: Channel, message: Message) -> None:
        self._sent = self._reactor.seconds()
        self._answer = channel.publish(self._names.direct, INTAKE, pack(message.events), EVENTS(message.id))
        self._set_alarm()
        try:
            await self._answer
        except Unpublished as error:
            self._line.unsent()
            await self._not_taken(error)
            return
        if self._refusal:
            self._refusal, self._pause = "", FIRST_PAUSE
            self._changed()
        self._before = ""
        self._tell(self._line.confirmed())
        self._see_if_drained()

    async def _not_taken(self, error: Unpublished) -> None:
        """The broker has returned or refused a message: fail with it what stands behind it, or try again in a while."""
        if not self._patient and not error.returned:
            self._tell(self._line.refuse(f"{FULL} ({error})"))
            self._see_if_drained()
            return
        self._refusal = str(error) if error.returned else f"{FULL} ({error})"
        self._changed()
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        await deferLater(self._reactor, pause * random.uniform(0.5, 1), lambda: None)  # noqa: S311 - jitter

    def _see_if_drained(self) -> None:
        if self._drained is not None and self._line.oldest() is None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _tell(self, outcomes: list[Outcome]) -> None:
        """Tell callers, in order, from a turn of their own: they may do anything, also stop us."""
        if outcomes and not self._outcomes:
            self._telling = self._reactor.callLater(0, self._tell_now)
        self._outcomes += outcomes

    def _tell_now(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        for call, error in outcomes:
            call.tell(error)

    def _withdraw(self, call: Call) -> None:
        self._line.give_up(call, "cancelled")

    def _was_refused(self, text: str) -> None:
        """Nobody is to wait for a wrong password. Once we were let in, it may be the broker that is not ready."""
        if not self._ever:
            self._tell(self._line.refuse(text))
        if self._refused is not None:
            self._refused(text)

    def _changed(self) -> None:
        """The connection, or what the broker takes, has changed."""
        blocked, self._blocked = self._blocked, bool(self.bus.blocked)
        if blocked and not self._blocked:
            # Now the broker reads on, and has its time for the answer.
            self._sent = self._reactor.seconds()
        if self.bus.state is State.ESTABLISHED and not self._blocked:
            self._rouse()
        if self.bus.state is State.WAITING:
            self._before = self.bus.trouble
        if not self.trouble:
            self._troubled = None
        elif self._troubled is None:
            self._troubled = self._reactor.seconds()
        self._set_alarm()

    def _rouse(self) -> None:
        """Let the session look at the line, after this turn: what is emitted in one turn goes in one message."""
        wake, self._wake = self._wake, None
        if wake is not None:
            self._reactor.callLater(0, wake.callback, None)

    def _set_alarm(self) -> None:
        """See to it that `_ring` is called when somebody's time is over."""
        due = self._due()
        if due is None:
            return
        if self._alarm is not None and self._alarm.active():
            if self._alarm.getTime() <= due:
                return
            self._alarm.cancel()
        self._alarm = self._reactor.callLater(max(0.0, due - self._reactor.seconds()), self._ring)

    def _due(self) -> float | None:
        oldest = self._line.oldest()
        times = [] if oldest is None else [oldest + self._timeout]
        fresh = self._line.oldest(sure=True) if self._troubled is not None else None
        if self._troubled is not None and fresh is not None:
            times.append(max(fresh, self._troubled) + self._grace)
        if self._line.in_flight and not self.bus.blocked:
            times.append(self._sent + STALLED)
        return min(times, default=None)

    def _ring(self) -> None:
        now, why = self._reactor.seconds(), self.trouble or unanswered(self._before)
        late = self._line.give_up_since(now - self._timeout, f"not confirmed within {self._timeout:g} s: {why}")
        if self._troubled is not None and self._troubled + self._grace <= now:
            late += self._line.give_up_since(now - self._grace, why, sure=True)
        self._tell(late)
        if self._line.in_flight and not self.bus.blocked and self._sent + STALLED <= now and not self._answer.called:
            self._answer.errback(TimeoutError(f"no answer to a message for {STALLED:g} s"))
        self._set_alarm()
