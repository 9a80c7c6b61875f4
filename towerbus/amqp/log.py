"""The log in RabbitMQ, as a server reads it: a stream that the worker declares and writes.

It is followed on a connection of its own, across reconnects: each time the end is looked up, the last record that was
read is asked for again, and what became of the log meanwhile follows from the answer (log/following.py). Whatever can't
be read any more is told to the followers. Older records are read on a second connection (catchup.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from towerbus.amqp.catchup import CatchUp
from towerbus.amqp.connection import Connection
from towerbus.amqp.follow import Follow
from towerbus.amqp.replay import StreamReplay
from towerbus.amqp.service import AmqpService, State
from towerbus.amqp.topology import Names
from towerbus.amqp.url import Broker
from towerbus.errors import BusUnavailable, PositionLostError
from towerbus.event import Event
from towerbus.log.followers import Followers
from towerbus.log.following import Following, Move
from towerbus.log.interface import ILog, ILogFollower, IReplay
from towerbus.log.pieces import in_tail
from towerbus.log.tail import Tail
from towerbus.positions import Lost, Position

TAIL_BYTES = 32 * 1024 * 1024
"""Bytes of the newest events that are kept in memory, unless configured otherwise."""
SETTLING = 2.0
"""Seconds in which what is in the log has to be read."""
_log = Logger()


@implementer(ILog)
class AmqpLog(MultiService):
    """The log.

    Args:
        broker: Where.
        reactor: Connects, and tells the time, in seconds that never jump.
        tail_bytes: Bytes of the newest events that are kept in memory.
        refused: As `AmqpService` has it.
    """

    def __init__(
        self,
        broker: Broker,
        reactor: Any,
        *,
        tail_bytes: int = TAIL_BYTES,
        refused: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.tail = Tail(Position("0", 0, 0, 0), max_bytes=tail_bytes)
        self.bus = AmqpService(broker, "log", reactor, self._session, refused=refused)
        """The connection, with its state, for health."""
        self.bus.setServiceParent(self)
        self.catch_up = CatchUp(broker, Names(broker.prefix).log, reactor)
        self.on_internal: Callable[[Sequence[Event]], None] | None = None
        """Called with the internal events when they come along; nobody else gets them."""
        self.records = self.events = self.losses = 0
        """What was read since the start, and how often something was found lost."""
        self._stream = Names(broker.prefix).log
        self._reactor = reactor
        self._tail_bytes = tail_bytes
        self._following = Following()
        self._followers = Followers()
        self._follow: Follow | None = None
        self._unknowing: list[Deferred[None]] = []
        self._asking: list[Deferred[int]] = []
        self._looking = False

    # For those who read

    def follow(self, follower: ILogFollower) -> None:
        """Hand every record from now on to the follower. Internal events are taken out; what is left may be empty."""
        self._followers.add(follower)

    def replay(self, after: Position) -> Deferred[IReplay]:
        """Read what stands behind a position, from memory or from the stream."""
        return Deferred.fromCoroutine(self._replay(after))

    async def _replay(self, after: Position) -> IReplay:
        if not self.known:
            raise BusUnavailable(f"the log's end is not known yet: {self.trouble}")
        if self._is_past(after):
            await self._reach(after)
        replay = StreamReplay(self.tail, self.catch_up, after)
        if not in_tail(self.tail, after):
            await replay.check()
        return replay

    def _is_past(self, after: Position) -> bool:
        end = self.tail.end
        return after.epoch == end.epoch and (after > end or after.offset > end.offset)

    async def _reach(self, after: Position) -> None:
        """A position past what was read: another server may have read it before us."""
        behind = await self.behind()
        until = self._reactor.seconds() + SETTLING
        while behind and self._is_past(after) and self._reactor.seconds() < until:
            await deferLater(self._reactor, 0.01, lambda: None)
        if self._is_past(after) and after > self.tail.end:
            raise PositionLostError(Lost(after, self.tail.end, "the position is past the end of the log"))

    # For those who watch over it

    @property
    def known(self) -> bool:
        """Whether the log's end was reached once: from then on `tail` says what the log has."""
        return self._following.known

    def when_known(self) -> Deferred[None]:
        """A Deferred that fires when the log's end is reached for the first time."""
        if self.known:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._unknowing.append(waiting)
        return waiting

    @property
    def missing(self) -> str:
        """Why there is nothing to read yet: the stream is not there; empty where it is, or nobody knows."""
        return "" if self._follow is None else self._follow.missing

    @property
    def trouble(self) -> str:
        """Why the log is not being read now; empty where it is."""
        if self.bus.state is State.ESTABLISHED:
            return ""
        return self.missing or self.bus.trouble or "its end is being looked up"

    @property
    def offset(self) -> int:
        """The offset of the last stored record that was read; -1 before the first."""
        return -1 if self._following.last is None else self._following.last.offset

    @property
    def paused(self) -> bool:
        """Whether the followers have asked to wait."""
        return self._follow is not None and self._follow.paused

    @property
    def voided(self) -> int:
        """Records that were void."""
        return self._following.voided

    @property
    def unreadable(self) -> int:
        """Records that could not be read."""
        return self._following.unreadable

    def behind(self) -> Deferred[int]:
        """Look up the log's end.

        Returns:
            How far it is ahead of what was read, in offsets. Those who ask share a look that begins after they have
            asked. It fails with `BusUnavailable` where nobody can say.
        """
        asked: Deferred[int] = Deferred()
        self._asking.append(asked)
        if not self._looking:
            Deferred.fromCoroutine(self._look())
        return asked

    def startService(self) -> None:
        """Begin to follow the log."""
        self.catch_up.open()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """End both connections."""
        stopped = maybeDeferred(super().stopService)
        return stopped.addCallback(lambda _: Deferred.fromCoroutine(self.catch_up.close()))

    async def _look(self) -> None:
        self._looking = True
        while self._asking:
            asking, self._asking = self._asking, []
            try:
                answer: int | Failure = await self._ahead()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is passed on
                reason = str(error) or type(error).__name__
                answer = Failure(BusUnavailable(f"the log's end can't be looked up: {reason}"))
            for asked in asking:
                if not asked.called:
                    asked.callback(answer)  # a Failure makes it fail
        self._looking = False

    async def _ahead(self) -> int:
        follow = self._follow
        if follow is None or self._following.last is None:
            raise BusUnavailable(self.trouble or "nothing was read yet")
        end = await follow.end()
        return max(0, end.offset - self._following.last.offset)

    # Following

    async def _session(self, connection: Connection, established: Callable[[], None]) -> None:
        follow = self._follow = Follow(
            connection,
            self._stream,
            self._reactor,
            self._following,
            tail_bytes=self._tail_bytes,
            act=self._act,
            settled=established,
        )
        try:
            await follow.run()
        finally:
            self._follow = None

    def _act(self, move: Move) -> Deferred[None] | None:
        """Do what a move says: the tail first, then the followers."""
        step, wait = move.step, None
        if move.begin is not None:
            self.tail.restart(move.begin)
        if step.lost is not None:
            self._lose(step.lost)
        if step.internal and self.on_internal is not None:
            self.on_internal(step.internal)
        if step.record is not None:
            self.records += 1
            self.events += len(step.record.events)
            self.tail.append(step.record, size=step.size)
            if move.live:
                wait = self._followers.deliver(step.record)
        if self._unknowing and self.known:
            self._tell_known()
        return wait

    def _lose(self, lost: Lost) -> None:
        self.losses += 1
        _log.error("log_lost: from {after} to {until}: {reason}", **lost._asdict())
        self.tail.restart(lost.until)
        self._followers.lost(lost)

    def _tell_known(self) -> None:
        _log.info("log_known: {stream} up to {end}", stream=self._stream, end=str(self.tail.end))
        unknowing, self._unknowing = self._unknowing, []
        for each in unknowing:
            each.callback(None)
