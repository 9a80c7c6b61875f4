"""One session of the worker: from the objects' declaration to the loss of the connection.

    declare -> read the log back -> consume the intake (STANDBY) --first delivery--> fence (STARTING)
            -> take, write, confirm, acknowledge (ACTIVE) -> until the channel, the log or the intake is gone

Nothing of it outlives the connection: what is known of the log, and what was delivered, is begun anew with the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.amqp.channel import Delivery
from towerbus.amqp.connection import Connection
from towerbus.amqp.errors import Unpublished
from towerbus.amqp.properties import EVENTS, UNREADABLE
from towerbus.amqp.topology import Limits, Names, declare
from towerbus.amqp.worker.acks import Acks
from towerbus.amqp.worker.ends import Finished, IntakeDeleted, Lighter, Stalled, Superseded, TooHeavy
from towerbus.amqp.worker.reader import LogReader
from towerbus.amqp.worker.writer import Writer
from towerbus.errors import PeerError
from towerbus.event import MAX_PAYLOAD, Event, EventError
from towerbus.intake import messages
from towerbus.log.record import Record
from towerbus.worker.counters import Counters, Role
from towerbus.worker.ordering import Ordering
from towerbus.worker.told import Told

SETTLES = 2.0
"""Seconds after the first declare of a quorum queue in which a kill of the broker takes it away for ever."""
TICK = 1.0
"""Seconds between a standby's knocks, between looks at what is under way, and between an active worker's looks whether
another has written to the log."""
STALLED = 30
"""Ticks without a confirm, after which the session is given up: another worker, or another session, may do better."""
PREFETCH = 1000
"""Messages that may be delivered and not acknowledged."""
MAX_IN_HAND = 64 * 1024 * 1024
"""Bytes in such messages, beyond which the session is given up, and the next has fewer in hand."""
STEP = 8
"""How many times fewer; and more again, where that was too few."""
FEW, WHILE = 100, 30
"""With fewer messages than this in hand a worker is slow; it tries to have more after so many ticks."""

_log = Logger()


class Setup(NamedTuple):
    """What a session is to do.

    Attributes:
        names: The broker's objects.
        limits: What they may hold.
        record_pause: Seconds between two records, at the least.
        max_payload: Bytes in an event's payload, at the most.
        prefetch: Messages that may be delivered and not acknowledged.
    """

    names: Names
    limits: Limits = Limits()
    record_pause: float = 0.002
    max_payload: int = MAX_PAYLOAD
    prefetch: int = PREFETCH


class Session:
    """One session.

    Args:
        connection: New, and this session's own.
        setup: What to do.
        counters: Counts it.
        reactor: Tells the time, and calls later.
    """

    def __init__(self, connection: Connection, setup: Setup, counters: Counters, reactor: Any) -> None:
        self._connection = connection
        self._setup = setup
        self._counters = counters
        self._reactor = reactor
        self._reader = LogReader(connection, setup.names.log, reactor, foreign=self._read_foreign, ended=self._end)
        self._voided = Told(reactor, _tell_voided)
        self._ticks = LoopingCall(self._tick)
        self._ticks.clock = reactor
        self._task: Deferred[None] = Deferred()
        self._error: Exception | None = None
        self._finishing = False
        self._busy = False
        self._waited = self._ticked = 0
        self._knocking = 0
        self._wake: Deferred[None] | None = None
        self._waking: Any = None
        self._later: list[Any] = []

    async def run(self, established: Callable[[], None]) -> None:
        """Do all of it.

        Args:
            established: Called when it is in order: it stands by, or is active.

        Raises:
            Exception: Why it can't go on. It returns only when it was asked to finish.
        """
        self._task = Deferred.fromCoroutine(self._live(established))
        try:
            await self._task
        except (CancelledError, Finished):
            if self._error is None:
                raise
            if not isinstance(self._error, Finished):
                raise self._error from None
        finally:
            self._close()

    def finish(self) -> None:
        """Let what is in flight be confirmed and acknowledged, and end then."""
        self._finishing = True
        if not self._busy:
            self._end(Finished())

    def _end(self, error: Exception) -> None:
        """End it, as soon as this turn is over."""
        if self._error is None:
            self._error = error
            self._later.append(self._reactor.callLater(0, self._cancel))

    def _cancel(self) -> None:
        self._task.cancel()

    def _close(self) -> None:
        self._to(Role.WAITING)
        self._counters.in_hand = 0
        self._reader.close()
        self._voided.close()
        if self._ticks.running:
            self._ticks.stop()
        for call in (self._waking, *self._later):
            if call is not None and call.active():
                call.cancel()

    async def _live(self, established: Callable[[], None]) -> None:
        names = self._setup.names
        channel = await self._connection.channel()
        made = await declare(self._connection, channel, names, self._setup.limits)
        settled = self._reactor.seconds() + (SETTLES if made.queues else 0.0)
        await self._reader.begin()
        self._counters.epoch = self._reader.known.epoch
        self._ordering = Ordering(self._reader.known, self._read)
        await channel.limit(self._setup.prefetch)
        await channel.confirm()
        acks = Acks(channel, self._setup.prefetch, self._reactor)
        self._writer = Writer(channel, names, self._reader, self._counters, self._reactor, self._connection.frame_max)
        await channel.consume(names.intake, self._delivered, cancelled=self._intake_cancelled)
        self._to(Role.STANDBY)
        _log.info("worker_standby: epoch {epoch}", epoch=self._reader.known.epoch or "none yet")
        self._later.append(self._reactor.callLater(max(0.0, settled - self._reactor.seconds()), established))
        self._ticks.start(TICK)
        try:
            if self._ordering.idle:
                await self._something()
            self._to(Role.STARTING)
            await self._writer.fence()
            self._writer.catch_up()
            self._to(Role.ACTIVE)
            _log.info("worker_active: epoch {epoch}, term {term}", epoch=self._writer.epoch, term=self._writer.term)
            await self._work(acks)
        finally:
            self._writer.close()
            # Of the records of one who was superseded nobody knows whether they count.
            if isinstance(self._error, Superseded):
                acks.close()
            else:
                acks.flush()

    async def _work(self, acks: Acks) -> None:
        """Order what is delivered into the log, one record after the other."""
        ordering, due, last = self._ordering, 0.0, self._reactor.seconds()
        while not self._finishing:
            if ordering.idle:
                await self._something()
                continue
            early = due - self._reactor.seconds()
            if early > 0:
                await deferLater(self._reactor, early, lambda: None)
            if self._error is not None:
                raise self._error
            step = ordering.take()
            look = False
            if step.events:
                now = self._reactor.seconds()
                look, last, due = now - last > TICK, now, now + self._setup.record_pause
            if step.events or step.dead:
                self._busy, self._waited = True, 0
                await self._writer.write(step, look=look)
                self._busy = False
            else:
                self._counters.repeats += step.repeats
            through = ordering.settle(step)
            self._counters.in_hand = ordering.size
            if through:
                # A dead letter that came again would be kept twice.
                acks.settled(through, at_once=bool(step.dead))

    async def _something(self) -> None:
        """Wait for a delivery."""
        self._wake = Deferred()
        await self._wake

    def _delivered(self, delivery: Delivery) -> None:
        self._ordering.add(delivery)
        if self._ordering.size > MAX_IN_HAND and self._setup.prefetch > 1:
            self._end(TooHeavy(f"{self._ordering.size} bytes are in hand, in messages larger than was thought"))
        wake, self._wake = self._wake, None
        if wake is not None and not wake.called:
            # After this turn: what has come with it goes into the same record.
            self._waking = self._reactor.callLater(0, wake.callback, None)

    def _read(self, delivery: Delivery) -> list[Event]:
        """Understand a message. Whatever is wrong with it, our own faults too, must not bring it back for ever."""
        try:
            return self._understood(delivery)
        except PeerError:
            raise
        except Exception as error:
            _log.failure("message_failed")
            raise EventError(f"towerbus failed to read it, please report this: {error!r}") from error

    def _understood(self, delivery: Delivery) -> list[Event]:
        properties: Any = delivery.properties
        if EVENTS.made(properties):
            return messages.read_packed(delivery.body, self._setup.max_payload)
        if properties.headers and UNREADABLE in properties.headers:
            raise EventError("its properties can't be read: a header with a time that no clock has, or nested too deep")
        return messages.read(
            delivery.body,
            content_type=_text(properties.content_type),
            routing_key=delivery.routing_key,
            message_id=_text(properties.message_id),
            timestamp=properties.timestamp,
            max_payload=self._setup.max_payload,
        )

    def _read_foreign(self, record: Record, counts: bool) -> None:  # noqa: FBT001
        if self._counters.role is Role.WAITING:
            return
        if not counts:
            self._counters.voided += 1
            self._voided.add(f"offset {record.offset}, term {record.term}")
        elif self._counters.role is Role.ACTIVE and self._error is None:
            _log.warn(
                "superseded: by a worker of term {term}; ours is {ours}", term=record.term, ours=self._writer.term
            )
            self._end(
                Superseded(f"another worker is the active one: its term is {record.term}, ours {self._writer.term}")
            )

    def _tick(self) -> None:
        """Knock while standing by, and see that what is under way gets on."""
        if self._counters.role is Role.STANDBY and self._knocking:
            # How long it has had no answer.
            self._knocking += 1
        elif self._counters.role is Role.STANDBY:
            self._knocking = 1
            self._writer.knock().addCallbacks(self._knocked, self._not_knocked)
        if self._counters.role is Role.ACTIVE and not self._connection.blocked:
            self._writer.catch_up()
        under_way = self._busy or self._counters.role is Role.STARTING
        self._waited = self._waited + 1 if under_way and not self._connection.blocked else 0
        if max(self._waited, 0 if self._connection.blocked else self._knocking) > STALLED:
            self._end(Stalled(f"the broker has not confirmed what was published {STALLED * TICK:g} s ago"))
        self._ticked += 1
        if self._setup.prefetch < FEW and self._ticked > WHILE and self._ordering.size * STEP < MAX_IN_HAND:
            self._end(Lighter(f"it goes on with more than {self._setup.prefetch} messages in hand"))

    def _knocked(self, _: None) -> None:
        self._knocking = 0

    def _not_knocked(self, reason: Failure) -> None:
        """A full intake needs no knock; where it can't be reached, the session is of no use."""
        self._knocking = 0
        error = reason.value
        if isinstance(error, Exception) and not (isinstance(error, Unpublished) and not error.returned):
            self._end(error)

    def _intake_cancelled(self) -> None:
        self._end(IntakeDeleted("the intake can't be read any more: it was deleted, or its node went down"))

    def _to(self, role: Role) -> None:
        self._counters.role = role


def _text(given: str | bytes | None) -> str | None:
    """A short string, which pika leaves as it is where it is not UTF-8: then as one that no rule takes."""
    return given.decode(errors="surrogateescape") if isinstance(given, bytes) else given


def _tell_voided(count: int, which: str) -> None:
    _log.warn(
        "record_voided: {count} records of a worker that had lost the intake are void: {which}",
        count=count,
        which=which,
    )
