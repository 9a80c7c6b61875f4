"""The fan-out: takes records from the log, and at the end of each turn sends every cohort its bytes.

A flush to very many connections is cut into slices, so that accepts, pings and other topics are never held up for more
than some milliseconds. While slices are owed, newer events gather; what a member is owed is sent before anything else
that it is sent, such as the reply to a change of its subscriptions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from towerbus.dispatcher import Lane
from towerbus.interest import Interest
from towerbus.log.interface import ILogFollower
from towerbus.log.record import Record
from towerbus.positions import Lost, Position

SLICE = 1000
"""Members that are sent to without a pause: 3 to 5 ms of sends."""
GATHER = 256 * 1024
"""Bytes that are gathered before the turn is ended early: bounds what one send may leave in a transport."""
BACKLOG = 4 * 1024 * 1024
"""Bytes gathered or owed from which on the log is asked to wait."""


NOWHERE = Position("0", 0, 0, 0)
"""The place of a fan-out that nobody has told where the log begins."""


class Member(Protocol):
    """What the fan-out sends to."""

    def write(self, data: bytes) -> None:
        """Send whole frames after everything that was written before."""


@implementer(ILogFollower)
class FanOut:
    """Between the log and the members.

    Args:
        lanes: One for each writing of the events.
        call_later: Calls a function in a coming turn of the reactor (`IReactorTime.callLater`).
        broadcast: Writes the same bytes to many members, all of them walked before it does anything else: members come
            and go by what follows.
        begin: Tells the place from which on the log hands over its records, while it has handed over none.

    Attributes:
        deliveries: How often bytes were sent to a member so far.
        delivered_bytes: How many these were.
        on_lost: Called when a part of the log was lost, between what came before and what comes after it.
    """

    def __init__(
        self,
        lanes: Sequence[Lane[Any]],
        call_later: Callable[..., Any],
        broadcast: Callable[[Iterable[Any], bytes], None],
        begin: Callable[[], Position] = lambda: NOWHERE,
    ) -> None:
        self._lanes = lanes
        self._broadcast = broadcast
        self._call_later = call_later
        self._gathered = 0
        self._owed: deque[tuple[dict[Any, None], bytes, int]] = deque()
        self._owed_bytes = 0
        self._budget = SLICE
        self._scheduled = False
        self._waiting: list[Deferred[None]] = []
        self._begin = begin
        self._taken: Position | None = None
        self._flushed: Position | None = None
        self.deliveries = 0
        self.delivered_bytes = 0
        self.on_lost: Callable[[Lost], None] = _tell_nobody

    @property
    def position(self) -> Position:
        """The place up to which everything has been sent, or is owed and comes before all else."""
        place = self._flushed if self._gathered else self._taken
        return self._begin() if place is None else place

    def received(self, record: Record) -> Deferred[None] | None:
        """Gather a record's events; a Deferred asks to wait for it before the next."""
        if not self._gathered:
            # All up to here was sent, or heard by nobody.
            self._flushed = record.begin if self._taken is None else self._taken
        begin: int | None = 0
        while begin is not None:
            begin = self._gather(record, begin)
        self._taken = record.end
        if self._gathered:
            self._schedule()
        if self._gathered + self._owed_bytes <= BACKLOG:
            return None
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _gather(self, record: Record, begin: int) -> int | None:
        """Gather a record's events from one on; where to go on, if the turn was ended before all of them."""
        found = [(lane, numbers) for lane in self._lanes if (numbers := lane.heard(record, begin))]
        places = found[0][1] if len(found) == 1 else sorted(set().union(*[numbers for _, numbers in found]))
        for place in places:
            for lane, _ in found:
                self._gathered += lane.take(record, place)
            if self._gathered > GATHER:
                self._taken = record.position(place)
                self.end_turn()
                # Who is heard by whom may be another matter now.
                return place + 1
        return None

    def lost(self, lost: Lost) -> None:
        """Take note that a part of the log went by unread; what comes next is behind it."""
        self.flush()
        self._taken = self._flushed = lost.until
        self.on_lost(lost)

    def subscribe(self, lane: Lane[Any], member: Member, joined: Interest, left: Interest) -> Position:
        """Change what a member hears, from the next event on: what came before is its by its old subscriptions.

        A member that may leave because of what came before has to be flushed, and looked at, before.

        Returns:
            The place from which on it hears the new ones.
        """
        position = self.flush()
        lane.leave(member, left)
        lane.join(member, joined)
        return position

    def tell(self, members: Collection[Member], data: bytes) -> None:
        """Send the same bytes to many members, in slices, before anything that comes after."""
        self.flush()
        if members:
            self._owed.append((dict.fromkeys(members), data, 0))
            self._schedule()

    def settle(self, member: Member) -> None:
        """Send a member what it is owed, now, so that something else may follow."""
        seen = 0
        while seen < len(self._owed):
            # What is written may lead to more that is owed, behind all this.
            for owed, data, _ in tuple(islice(self._owed, seen, None)):
                seen += 1
                if member in owed:
                    del owed[member]
                    self.deliveries += 1
                    self.delivered_bytes += len(data)
                    member.write(data)

    def forget(self, lane: Lane[Any], member: Member, interest: Interest) -> None:
        """A member is gone: it gets nothing more, of what it is owed neither."""
        for owed, _, _ in self._owed:
            owed.pop(member, None)
        lane.leave(member, interest)

    def flush(self) -> Position:
        """End the turn where something is gathered.

        Returns:
            The place up to which everything has been sent, or is owed and comes before all else.
        """
        if self._gathered:
            self.end_turn()
        return self.position

    def end_turn(self) -> None:
        """Work out who gets what was gathered; send it, or owe it where that is long or something is owed already."""
        self._gathered, gathered = 0, self._gathered
        self._flushed = self._taken
        for lane in self._lanes:
            for members, data in lane.cohorts():
                if self._owed or len(members) > self._budget:
                    self._owed.append((dict.fromkeys(members), data, gathered))
                    self._owed_bytes += gathered
                    gathered = 0
                else:
                    self._budget -= len(members)
                    self._send(members, data)
        if self._owed or self._budget < SLICE:
            self._schedule()

    def _send(self, members: Collection[Member], data: bytes) -> None:
        self.deliveries += len(members)
        self.delivered_bytes += len(members) * len(data)
        self._broadcast(members, data)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_later(0, self._run)

    def _run(self) -> None:
        self._scheduled = False
        self._budget = SLICE
        if self._owed:
            self._pay()
        elif self._gathered:
            self.end_turn()
        if self._owed or self._gathered:
            self._schedule()
        if self._waiting and self._gathered + self._owed_bytes <= BACKLOG // 2:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def _pay(self) -> None:
        while self._owed and self._budget:
            owed, data, size = self._owed[0]
            due = [owed.popitem()[0] for _ in range(min(self._budget, len(owed)))]
            self._budget -= len(due)
            if not owed:
                self._owed.popleft()
                self._owed_bytes -= size
            self._send(due, data)


def _tell_nobody(lost: Lost) -> None:
    """There is nobody to be told."""
