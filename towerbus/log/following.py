"""Following a stored log over many connections: where to read on, and what was lost meanwhile. Pure.

    WARMING --the end is reached--> FOLLOWING <--last record found again-- VERIFYING
                                       |                                      ^   |
                                       `------ reconnected, or a leap --------'   |
                                       ^------ first record of the new log -- RENEWING

Whoever comes back asks for the last record that was read, not for the one behind it: if that is there, and the same,
then nothing is missing, whatever the broker did with offsets in between. If it is not, the log let go of it, was made
anew, or was restored from an old copy.
"""

from __future__ import annotations

import enum
from typing import Literal, NamedTuple

from towerbus.log.packing import NotARecord, unpack
from towerbus.log.record import Record
from towerbus.log.sequence import AnotherLog, Sequence, Step, Stored
from towerbus.positions import Lost, Position

RETENTION = "the log let go of it before it was read"
ANEW = "the log was made anew"
RESTORED = "the log was restored from an old copy, or lost its newest records"
CONTEXT = 64
"""Records that are read before the first that is kept: they show which records behind them are void."""

Start = int | Literal["first"]
"""Where a consumer begins: at an offset, or at the first record that is there."""


class State(enum.Enum):
    """What is being read."""

    WARMING = "warming"
    FOLLOWING = "following"
    VERIFYING = "verifying"
    RENEWING = "renewing"


class Move(NamedTuple):
    """What to do about a stored record.

    Attributes:
        step: What it came to. `step.lost` is to be told, and the tail to be restarted at its end.
        live: Whether the record is to be handed on; else it only goes into the tail.
        begin: Where the tail is to begin anew, before the record.
        reopen: Where to read on with another consumer, instead of this one.
        diverged: Whether another record stands where the last one stood: `rewound` says where to read on.
    """

    step: Step = Step()
    live: bool = True
    begin: Position | None = None
    reopen: Start | None = None
    diverged: bool = False


STAY = Move()


class Following:
    """What a reader of the whole log knows, for the life of the process."""

    def __init__(self) -> None:
        self.state = State.WARMING
        self.known = False
        """Whether the end of the log was reached."""
        self.last: Stored | None = None
        """The last stored record that was read."""
        self._sequence = Sequence(None)
        self._sure = False
        self._warm_from = self._warm_until = 0
        self._warm = False
        self._voided = self._unreadable = 0

    @property
    def voided(self) -> int:
        """Records that were void."""
        return self._voided + self._sequence.voided

    @property
    def unreadable(self) -> int:
        """Records that could not be read."""
        return self._unreadable + self._sequence.unreadable

    @property
    def settled(self) -> bool:
        """Whether what is read now is what others may get."""
        return self.state is State.FOLLOWING

    def begin(self, end: Stored, count: int) -> Start:
        """Begin: read the newest records into the tail.

        Args:
            end: The last record of the log.
            count: How many records to keep, at the most.

        Returns:
            Where to read from.
        """
        self.state = State.WARMING
        self._renew(None)
        self._warm, self._warm_until = False, end.offset
        self._warm_from = max(0, end.offset + 1 - count)
        return max(0, self._warm_from - CONTEXT)

    def resume(self, end: Stored) -> Start | None:
        """Go on after the connection was lost.

        Args:
            end: The last record of the log.

        Returns:
            Where to read from; None where the log ends before what was read: a copy of it may only be behind, so look
            again, and in the end call `rewound`.
        """
        assert self.last is not None  # noqa: S101 - it is known
        if end.offset >= self.last.offset:
            self.state = State.VERIFYING
            return self.last.offset
        if self._is_of_another_log(end):
            self.state = State.RENEWING
            return "first"
        return None

    def rewound(self, end: Stored) -> Lost:
        """The log is an older copy of what was read: go on from its end, by verifying that.

        Args:
            end: The last record of the log.
        """
        before = self._end()
        try:
            until = unpack(end.body, end.offset).end
        except NotARecord:
            until = Position(before.epoch, before.term, end.offset, 0)
        self._renew(until)
        self.last, self.state = end, State.VERIFYING
        return Lost(before, until, RESTORED)

    def take(self, offset: int, body: bytes) -> Move:
        """Take the next stored record of the consumer that was opened last."""
        match self.state:
            case State.FOLLOWING:
                move = self._follow(offset, body)
            case State.WARMING:
                move = self._fill(offset, body)
            case State.VERIFYING:
                move = self._verify(offset, body)
            case State.RENEWING:
                move = self._await_new(offset, body)
        if move.reopen is None and not move.diverged and self.state is not State.RENEWING:
            self.last = Stored(offset, body)
        return move

    def _follow(self, offset: int, body: bytes) -> Move:
        assert self.last is not None  # noqa: S101 - something was read
        if self._sequence.leaps(offset) and not self._sure:
            self.state = State.VERIFYING
            return Move(reopen=self.last.offset)
        self._sure = False
        try:
            return Move(self._sequence.take(offset, body))
        except AnotherLog as error:
            return self._made_anew(error.record, body)

    def _fill(self, offset: int, body: bytes) -> Move:
        before, leaps = self._sequence.end, self._sequence.leaps(offset)
        try:
            step = self._sequence.take(offset, body)
        except AnotherLog as error:
            before = None
            self._renew(error.record.begin)
            step = self._sequence.take(offset, body)
        if offset >= self._warm_until and self._sequence.end is not None:
            self.known, self.state = True, State.FOLLOWING
        begin = None
        if step.lost is not None:
            begin, self._warm = step.lost.until, True
        elif step.record is not None and offset >= self._warm_from and (not self._warm or leaps or before is None):
            begin, self._warm = step.record.begin if leaps or before is None else before, True
        elif not self._warm and self.known:
            begin, self._warm = self._sequence.end, True
        kept = step._replace(record=step.record if self._warm else None, lost=None)
        return Move(kept, live=offset > self._warm_until, begin=begin)

    def _verify(self, offset: int, body: bytes) -> Move:
        assert self.last is not None  # noqa: S101 - something was read
        if offset == self.last.offset:
            if body == self.last.body:
                self.state, self._sure = State.FOLLOWING, True
                return STAY
            if not self._is_of_another_log(Stored(offset, body)):
                return Move(diverged=True)
        before = self._end()
        overtaken = self._sequence.leaps(offset)
        try:
            step = self._sequence.take(offset, body)
        except AnotherLog:
            self.state = State.RENEWING
            return Move(reopen="first")
        self.state = State.FOLLOWING
        if overtaken:
            until = step.record.begin if step.record is not None else Position(before.epoch, before.term, offset, 0)
            step = step._replace(lost=Lost(before, until, step.lost.reason if step.lost else RETENTION))
        return Move(step)

    def _await_new(self, offset: int, body: bytes) -> Move:
        try:
            record = unpack(body, offset)
        except NotARecord:
            return STAY
        if record.epoch == self._end().epoch:
            return STAY
        self.state = State.FOLLOWING
        return self._made_anew(record, body)

    def _made_anew(self, record: Record, body: bytes) -> Move:
        lost = Lost(self._end(), record.begin, ANEW)
        self._renew(record.begin)
        return Move(self._sequence.take(record.offset, body)._replace(lost=lost))

    def _renew(self, begin: Position | None) -> None:
        self._voided, self._unreadable = self.voided, self.unreadable
        self._sequence = Sequence(begin)

    def _is_of_another_log(self, stored: Stored) -> bool:
        try:
            return unpack(stored.body, stored.offset).epoch != self._end().epoch
        except NotARecord:
            return False

    def _end(self) -> Position:
        end = self._sequence.end
        assert end is not None  # noqa: S101 - something was read
        return end
