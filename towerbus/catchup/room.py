"""The room where clients that come back wait for what they have missed, and get it without a seam.

    begin --> READY <--------- drained ---------+
                | position in the tail          |
                +--> some of it --> DRAINING ---+
                |    the rest  --> live         |
                | older than the tail           |
                +--> IN LINE --> READING -------+--> READY, once the tail has the rest

Everything is done in slices of some milliseconds. What a client is sent is bounded by what its connection takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from towerbus.catchup.encodings import Encodings
from towerbus.catchup.limits import SLICE, TICK, Counts, Limits
from towerbus.catchup.member import Member, Returning
from towerbus.catchup.readings import Readings
from towerbus.catchup.rest import Rest
from towerbus.dispatcher import Lane
from towerbus.errors import PositionLostError
from towerbus.interest import Opens
from towerbus.log.interface import ILog
from towerbus.positions import Lost, Position
from towerbus.session_wire import Past

_log = Logger()

LOOKS = 500
"""Members that are looked at in a turn, to see whether they have drained."""
INDEX = 1000
"""Events that are put into the tail's index in a turn."""


class CatchUp:
    """The room.

    Args:
        log: The log.
        flush: Sends everybody what was gathered of the log's events; tells the place up to which that is.
        opens: Tells which badges let see a topic.
        call_later: Calls a function in a coming turn of the reactor (`IReactorTime.callLater`).
        seconds: Tells the time, in seconds that never jump.
        limits: How much it may do.

    Attributes:
        counts: What has happened so far, for the metrics.
    """

    def __init__(
        self,
        log: ILog,
        flush: Callable[[], Position],
        opens: Opens,
        call_later: Callable[..., Any],
        seconds: Callable[[], float],
        limits: Limits | None = None,
    ) -> None:
        self._log = log
        self._flush = flush
        self._call_later = call_later
        self._seconds = seconds
        self._limits = limits or Limits()
        self.counts = Counts()
        self._rest = Rest(log, opens, self._limits)
        self._readings = Readings(log, self, opens, seconds)
        self._encodings: dict[Lane[Any], Encodings] = {}
        self._members: dict[Returning, Member] = {}
        self._ready: deque[Member] = deque()
        self._draining: deque[Member] = deque()
        self._ahead: deque[Member] = deque()
        self._call: Any = None
        self._call_is_soon = False

    def __len__(self) -> int:
        return len(self._members)

    def begin(self, who: Returning, lane: Lane[Any], past: Past) -> None:
        """Let a client catch up, which is to hear a lane's writing of the events."""
        encodings = self._encodings.get(lane)
        if encodings is None:
            encodings = self._encodings[lane] = Encodings(lane.encode)
        member = self._members[who] = Member(who, past, encodings, self._seconds())
        self.counts.begun += 1
        self.ready(member)

    def forget(self, who: Returning) -> None:
        """A client wants nothing any more."""
        member = self._members.pop(who, None)
        if member is not None:
            member.gone = True
            self._readings.drop(member)

    def look_again(self) -> None:
        """Something has happened to the log: who waits for a place in it may have lost that."""
        for member in self._readings.line.clear():
            self.ready(member)

    def close(self) -> None:
        """Do nothing any more."""
        self._readings.close()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # Station, for the readings

    @property
    def limits(self) -> Limits:
        """How much may be done."""
        return self._limits

    def flush(self) -> Position:
        """Send everybody what has come; the place up to which that is."""
        return self._flush()

    @property
    def is_crowded(self) -> bool:
        """Whether there are members of whom it is not known yet where they go."""
        return bool(self._ready)

    def ready(self, member: Member) -> None:
        """Take a member that has to be told of a loss, or of which the tail has the rest."""
        self._ready.append(member)
        self.wake(soon=True)

    def drain(self, member: Member) -> None:
        """Take a member that has to drain before it can be sent more."""
        self._draining.append(member)

    def recovered(self, member: Member) -> None:
        """Tell a member, once, that its place is there."""
        if not member.known and member.place is not None:
            member.known = True
            self.counts.recovered += 1
            member.who.recovered(member.place)

    def unavailable(self, member: Member, reason: str) -> None:
        """Send a member away: the log can't be read."""
        self.counts.unavailable += 1
        self.forget(member.who)
        member.who.unavailable(reason)

    def wake(self, *, soon: bool = False) -> None:
        """Do what is to be done in the next turn, or within a tick."""
        if self._call is not None:
            if self._call_is_soon or not soon:
                return
            self._call.cancel()
        self._call_is_soon = soon
        self._call = self._call_later(0 if soon else TICK, self._run)

    # Turns

    def _run(self) -> None:
        self._call = None
        begun = self._seconds()
        self._look_at_the_draining()
        self._look_ahead()
        if self._ready and self._log.tail.index(INDEX):
            while self._ready and self._seconds() - begun < SLICE / 2:
                self._served(self._ready.popleft())
        busy = self._readings.go_on(begun + SLICE)
        if self._ready or busy:
            self.wake(soon=True)
        elif self._draining or self._ahead or self._readings:
            self.wake()

    def _look_at_the_draining(self) -> None:
        for _ in range(min(len(self._draining), LOOKS)):
            self._give_more(self._draining.popleft())

    def _give_more(self, member: Member) -> None:
        if not member.gone:
            drained = member.who.waiting <= self._limits.room // 4
            (self._ready if drained else self._draining).append(member)

    def _look_ahead(self) -> None:
        for _ in range(len(self._ahead)):
            member = self._ahead.popleft()
            if not member.gone:
                (self._ahead if self._is_ahead(member) else self._ready).append(member)

    def _is_ahead(self, member: Member) -> bool:
        """Whether a member's place may come yet."""
        place, end = member.place, self._log.tail.end
        if place is None or place.epoch != end.epoch or place <= end:
            return False
        return self._seconds() - member.began < self._limits.grace

    def _served(self, member: Member) -> None:
        """Serve a member; a fault of ours ends only that one."""
        try:
            if not member.gone:
                self._serve(member)
        except Exception:  # noqa: BLE001 - whatever it is, the others must get on
            _log.failure("catch_up_failed")
            self.unavailable(member, "internal error")

    def _serve(self, member: Member) -> None:
        if member.lost is not None:
            self._tell_lost(member, member.lost)
        if member.place is None:
            # It comes without a position, and gets the last events of each topic first.
            member.place = self._flush()
            member.history.extend(self._rest.last(member))
            self.recovered(member)
        if member.gone:
            return
        if member.history:
            member.who.write(self._rest.history(member))
            self._give_more(member)
        elif self._is_ahead(member):
            self._ahead.append(member)
        else:
            self._place(member, member.place)

    def _tell_lost(self, member: Member, lost: Lost) -> None:
        member.lost, member.place = None, lost.until
        if member.known:
            member.who.missed(lost)
        else:
            member.known = True
            self.counts.lost += 1
            member.who.recovered(lost.until, lost)

    def _place(self, member: Member, place: Position) -> None:
        """Serve a member from where its place is: from the tail, or by a reading of the log."""
        try:
            covered = self._log.tail.covers(place)
        except PositionLostError as error:
            member.lost = error.lost
            self._ready.append(member)
            return
        if not covered:
            self._readings.add(member)
            return
        member.hoping = None
        self.recovered(member)
        position = self._flush()
        if member.gone:
            return
        if position.epoch != place.epoch:
            # The log was made anew in this turn, and the rest is about to hear of it.
            self._ahead.append(member)
            return
        self._give(member, position)

    def _give(self, member: Member, position: Position) -> None:
        """Send what is missed, as much as may be; and let the member hear the next event, when that was the rest."""
        data, place, is_rest = self._rest.missed(member, position)
        if data:
            member.who.write(data)
        if member.gone:
            return
        member.place = place
        if is_rest:
            self.forget(member.who)
            member.who.caught_up()
        else:
            self._give_more(member)
