"""The fan-out: takes records from the log, and at the end of each turn sends every cohort its bytes.

A flush to very many connections is cut into slices, so that accepts, pings and other topics are never held up for more
than some milliseconds. While slices are owed, newer events gather; what a member is owed is sent before anything else
that it is sent, such as the reply to a change of its subscriptions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from towerbus.dispatcher import Lane
from towerbus.log.interface import ILogFollower
from towerbus.log.record import Record
from towerbus.topics import Topic

SLICE = 1000
"""Members that are sent to without a pause: 3 to 5 ms of sends."""
GATHER = 256 * 1024
"""Bytes that are gathered before the turn is ended early: bounds what one send may leave in a transport."""
BACKLOG = 4 * 1024 * 1024
"""Bytes gathered or owed from which on the log is asked to wait."""


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
        broadcast: Writes the same bytes to many members.
    """

    def __init__(
        self,
        lanes: Sequence[Lane[Any]],
        call_later: Callable[..., Any],
        broadcast: Callable[[Iterable[Any], bytes], None],
    ) -> None:
        self._lanes = lanes
        self._broadcast = broadcast
        self._call_later = call_later
        self._gathered = 0
        self._owed: deque[tuple[dict[Any, bytes], int]] = deque()
        self._owed_bytes = 0
        self._budget = SLICE
        self._scheduled = False
        self._waiting: list[Deferred[None]] = []
        self.deliveries = 0

    def received(self, record: Record) -> Deferred[None] | None:
        """Gather a record's events; a Deferred asks to wait for it before the next."""
        for place in range(len(record.events)):
            for lane in self._lanes:
                self._gathered += lane.take(record, place)
            if self._gathered > GATHER:
                self.end_turn()
        if self._gathered:
            self._schedule()
        if self._gathered + self._owed_bytes <= BACKLOG:
            return None
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def subscribe(self, lane: Lane[Any], member: Member, joined: Iterable[Topic], left: Iterable[Topic]) -> None:
        """Change what a member hears, from the next event on: what came before is its by its old subscriptions."""
        if self._gathered:
            self.end_turn()
        lane.leave(member, left)
        lane.join(member, joined)

    def settle(self, member: Member) -> None:
        """Send a member what it is owed, now, so that something else may follow."""
        for owed, _ in self._owed:
            data = owed.pop(member, None)
            if data is not None:
                self.deliveries += 1
                member.write(data)

    def forget(self, lane: Lane[Any], member: Member, topics: Iterable[Topic]) -> None:
        """A member is gone."""
        for owed, _ in self._owed:
            owed.pop(member, None)
        lane.leave(member, topics)

    def end_turn(self) -> None:
        """Work out who gets what was gathered; send it, or owe it where that is long or something is owed already."""
        self._gathered, gathered = 0, self._gathered
        for lane in self._lanes:
            for members, data in lane.cohorts():
                if self._owed or len(members) > self._budget:
                    self._owed.append((dict.fromkeys(members, data), gathered))
                    self._owed_bytes += gathered
                    gathered = 0
                else:
                    self._budget -= len(members)
                    self._send(members, data)
        if self._owed or self._budget < SLICE:
            self._schedule()

    def _send(self, members: Iterable[Member], data: bytes) -> None:
        # A member whose outbox overflows leaves the audience while it is walked.
        everyone = tuple(members)
        self._broadcast(everyone, data)
        self.deliveries += len(everyone)

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
            owed, size = self._owed[0]
            while owed and self._budget:
                member, data = owed.popitem()
                member.write(data)
                self.deliveries += 1
                self._budget -= 1
            if not owed:
                self._owed.popleft()
                self._owed_bytes -= size
