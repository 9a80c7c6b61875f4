"""A reading of the log that many share: each record is read once, sorted out once and written once for all of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from towerbus.catchup.encodings import Encodings
from towerbus.catchup.member import Member
from towerbus.catchup.station import Owner, Station
from towerbus.dispatcher import Lane
from towerbus.errors import PositionLostError
from towerbus.interest import Opens
from towerbus.log.interface import ILog, IReplay
from towerbus.log.record import MAX_BYTES, Record
from towerbus.positions import Lost, Position

EVENTS = 256
"""Events that are sorted out at a time, as long as the log has so many: one send for each member."""
REACH = 1000
"""Places in the log that are read through to get to the next member, where there is none to be served on the way."""
LINGER = 5.0
"""Seconds that a reading is kept for members which all have to drain first."""
REST = 0.02
"""Seconds before a log that had no more to give is asked again."""


class Reading:
    """One reading of the log.

    Members join it at its place, get their events of every piece that is read, and leave it where they can't be sent
    more for now, or where the tail has the rest.

    Args:
        log: The log.
        owner: Who has it, and the line where members come from.
        station: Where they go.
        opens: Tells which badges let see a topic.
        seconds: Tells the time, in seconds that never jump.
        place: Where it begins.

    Attributes:
        place: Up to where its members have been sent everything, once the piece in hand is given out.
        members: Those who read along.
        closed: Whether it is at its end.
        idle: Since when nobody can be served, in seconds; None while somebody can.
        serving: Who is being given something; None between two.
    """

    def __init__(
        self,
        log: ILog,
        owner: Owner[Reading],
        station: Station,
        opens: Opens,
        seconds: Callable[[], float],
        place: Position,
    ) -> None:
        self._log = log
        self._owner = owner
        self._station = station
        self._opens = opens
        self._seconds = seconds
        self.place = self._begin = place
        self.members: dict[Member, None] = {}
        self.closed = False
        self.idle: float | None = None
        self.serving: Member | None = None
        self._replay: IReplay | None = None
        self._asking = self._known = False
        self._rests_until = 0.0
        self._records: deque[Record] = deque()
        self._in_hand = 0
        self._exhausted = False
        self._loss: PositionLostError | None = None
        self._lanes: dict[Encodings, Lane[Member]] = {}
        # The piece in hand: its records, who gets which bytes of it, and who is served one by one.
        self._piece: list[Record] = []
        self._ends: list[Position] = []
        self._same: dict[object, bytes] = {}
        self._deliveries: deque[tuple[list[Member], bytes]] = deque()
        self._singly: deque[Member] = deque()
        self._held_back = False

    def step(self) -> bool:
        """Do one small thing; False when there is nothing to be done now."""
        if self.closed:
            return False
        self.serving = None
        if self._deliveries:
            self._deliver()
        elif self._singly:
            self._serve(self._singly.popleft())
        elif self._piece:
            self._end_piece()
        elif not self._known:
            return self._ask()
        else:
            return self._go_on()
        return True

    def drop(self, member: Member) -> None:
        """Let a member go, if it is one."""
        if member in self.members:
            del self.members[member]
            if not member.past.without:
                self._lanes[member.encodings].leave(member, member.past.interest)

    def dismiss(self) -> list[Member]:
        """Read no more, and let all members go, between two pieces."""
        members, self.members = list(self.members), {}
        for member in members:
            member.place = self.place
        self.close()
        return members

    def close(self) -> None:
        """Read no more."""
        self.closed = True
        if self._replay is not None:
            self._replay.close()

    # From piece to piece

    def _go_on(self) -> bool:
        newcomers = self._owner.line.take(self.place, self.place._replace(place=self.place.place + 1), most=1)
        if newcomers:
            self._admit(newcomers[0], self.place)
            return True
        if self._is_at_its_end():
            return False
        if not self.members and not self._is_needed():
            return False
        self.idle = None
        if not self._records or (self._in_hand < EVENTS and not self._exhausted):
            return self._ask()
        return self._begin_piece(self._station.flush())

    def _is_at_its_end(self) -> bool:
        """Let all go where the tail has the rest, or the log does not have what comes next."""
        try:
            if self._log.tail.covers(self.place):
                for member in self.dismiss():
                    self._station.ready(member)
                return True
        except PositionLostError as error:
            self._loss = error
            self._records.clear()
        if self._loss is not None and not self._records:
            self._owner.lost(self, self._loss)
            return True
        return False

    def _is_needed(self) -> bool:
        """Whether somebody waits a little way ahead; nobody reads along now. Far ahead it is better to begin anew."""
        ahead = self._owner.line.first(self.place)
        if ahead is not None:
            near = ahead.place is not None and ahead.place.offset - self.place.offset <= REACH
            if not near:
                self.close()
            return near
        if self.idle is None:
            self.idle = self._seconds()
        if self._seconds() - self.idle > LINGER:
            self.close()
        return False

    def _begin_piece(self, position: Position) -> bool:
        """Sort out some records, and work out who gets what of them; false where there are none that may be sent yet.

        Members hear some topics all along, and their positions are for all that they hear: what they catch up with must
        not get ahead of the place up to which everybody has been sent everything.
        """
        if self._records[0].end > position:
            self._rests_until = self._seconds() + REST
            return False
        self._begin, self._held_back = self.place, False
        size = events = 0
        while self._records and self._records[0].end <= position and events < EVENTS and size < MAX_BYTES:
            record = self._records.popleft()
            self._in_hand -= len(record.events)
            self._piece.append(record)
            for number in record.behind(self._begin):
                size += len(record.events[number].payload)
                for lane in self._lanes.values():
                    lane.take(record, number)
            events += len(record.events)
        self._ends = [record.end for record in self._piece]
        self.place = max(self._begin, self._piece[-1].end)
        for lane in self._lanes.values():
            self._deliveries.extend((list(members), data) for members, data in lane.cohorts() if members)
        self._singly.extend(member for member in self.members if member.past.without)
        self._singly.extend(self._owner.line.take(self._begin, self.place))
        return True

    def _end_piece(self) -> None:
        """Go on to the next one; where nobody could be sent this one, keep it until somebody can."""
        if self._held_back and not self.members:
            self._records.extendleft(reversed(self._piece))
            self._in_hand += sum(len(record.events) for record in self._piece)
            self.place = self._begin
        self._piece.clear()
        self._same.clear()

    # Members

    def _admit(self, member: Member, place: Position) -> None:
        """Let a member read along; it has been sent everything up to a place."""
        member.place, member.hoping = place, None
        if not member.past.interest:
            # It wants to know only whether its position is there.
            self._station.recovered(member)
            member.place = self._log.tail.end
            self._station.ready(member)
            return
        self.members[member] = None
        if not member.past.without:
            lane = self._lanes.setdefault(member.encodings, Lane(member.encodings, self._opens))
            lane.join(member, member.past.interest)
        self._station.recovered(member)

    def _deliver(self) -> None:
        members, data = self._deliveries[0]
        member = self.serving = members.pop()
        if not members:
            self._deliveries.popleft()
        if member in self.members:
            self._send(member, data, self._begin)

    def _serve(self, member: Member) -> None:
        """Serve a member by itself: its place is inside the piece, or it wants less than whole groups."""
        if member.gone:
            return
        self.serving = member
        place = self._begin if member in self.members else member.place
        assert place is not None  # noqa: S101 - who has waited in line has one
        if place != self._begin and not self._has(place):
            member.lost = Lost(place, self._log.tail.end, "the position is not in the log: it was restored from a copy")
            self._station.ready(member)
            return
        if member not in self.members:
            self._admit(member, place)
        data = self._written(member, place)
        if data and member in self.members:
            self._send(member, data, place)

    def _has(self, place: Position) -> bool:
        """Whether a place behind the piece's begin is one in the log."""
        at = bisect_left(self._ends, place)
        return at < len(self._piece) and self._piece[at].begin <= place

    def _written(self, member: Member, place: Position) -> bytes:
        """What a member gets of the piece from a place on; those who are alike get the same bytes."""
        alike = (place, member.encodings, member.past.interest, member.past.without)
        data = self._same.get(alike)
        if data is None:
            first = bisect_right(self._ends, place)
            frames = [
                member.encodings(record, number)
                for at, record in enumerate(self._piece[first:])
                for number in (range(len(record.events)) if at else record.behind(place))
                if member.wants(record.events[number].topic, self._opens)
            ]
            data = self._same[alike] = b"".join(frames)
        return data

    def _send(self, member: Member, data: bytes, place: Position) -> None:
        waiting = member.who.waiting
        if not waiting or waiting + len(data) <= self._station.limits.room:
            member.who.write(data)
        else:
            self.drop(member)
            member.place = place
            self._held_back = True
            self._station.drain(member)

    # The log

    def _ask(self) -> bool:
        """Ask for more, if that was not done; whether the answer is there."""
        if self._asking or self._seconds() < self._rests_until:
            return False
        self._asking = True
        end = self._log.tail.end
        answer: Deferred[Sequence[Record]]
        answer = self._replay.more() if self._replay else self._log.replay(self.place).addCallback(self._opened)
        answer.addCallback(self._got, end).addErrback(self._failed)
        return not self._asking

    def _opened(self, replay: IReplay) -> Deferred[Sequence[Record]] | Sequence[Record]:
        self._replay = replay
        if self.closed:
            replay.close()
            return ()
        return replay.more()

    def _got(self, records: Sequence[Record], end: Position) -> None:
        self._asking = False
        if self.closed:
            return
        self._records.extend(records)
        self._in_hand += sum(len(record.events) for record in records)
        self._exhausted = not records
        if not records:
            self._rests_until = self._seconds() + REST
            if self._known and not self._records and end.epoch == self.place.epoch:
                # All that the log had when it was asked has been given.
                self.place = max(self.place, end)
        self._known = True
        self._owner.read()

    def _failed(self, failure: Failure) -> None:
        self._asking = False
        if self.closed:
            return
        if isinstance(failure.value, PositionLostError):
            if self._records:
                # What was read before that comes first.
                self._loss, self._exhausted = failure.value, True
                self._owner.read()
            else:
                self._owner.lost(self, failure.value)
        else:
            self._owner.unreadable(self, failure)
