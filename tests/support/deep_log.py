"""A log that is deeper than its tail, in memory: older records are read piece by piece, as from a disk or a broker."""

from __future__ import annotations

from itertools import takewhile

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from towerbus.errors import BusUnavailable, PositionLostError
from towerbus.intake.interface import IIntake
from towerbus.log.followers import Followers
from towerbus.log.interface import ILog, IReplay
from towerbus.log.record import Record, batches
from towerbus.log.tail import Tail
from towerbus.positions import Lost, Position, new_epoch


@implementer(ILog, IIntake)
class DeepLog:
    """Keeps every record until it is told to let go.

    Attributes:
        replays: How many replays were asked for.
        open: Those that are not closed.
        piece: Records that a replay gives at a time.
        away: Whether it can't be read.
        held: Deferreds of answers that wait for `release`; None where answers come at once.
    """

    def __init__(self, tail_bytes=2000, piece=10):
        self.begin = Position(new_epoch(), 1, 0, 0)
        self.tail = Tail(self.begin, max_bytes=tail_bytes)
        self.records, self.followers = [], Followers()
        self.replays, self.open, self.piece, self.away, self.held = 0, [], piece, False, None
        self.gap = 1
        self.unreadable = set()

    def emit(self, events):
        waits = [self.append(batch) for batch in batches(events)]
        return waits[-1] if waits else succeed(None)

    def append(self, events):
        """Put events into one record; offsets leave holes, as RabbitMQ's do."""
        last = self.records[-1].offset if self.records else 0
        record = Record(self.begin.epoch, self.begin.term, last + self.gap, tuple(events))
        self.records.append(record)
        self.tail.append(record)
        return self.followers.deliver(record)

    def let_go(self, count):
        """Let go of the oldest records."""
        self.begin = self.records[count - 1].end
        del self.records[:count]

    def begin_anew(self):
        """Become another log, as one that was deleted and made again."""
        after, self.begin = self.tail.end, Position(new_epoch(), 1, 0, 0)
        self.records.clear()
        self.tail.restart(self.begin)
        self.followers.lost(Lost(after, self.begin, "the log was made anew"))

    def lose(self, events):
        """Let records go by unread: they are in no tail, and can't be read any more."""
        last = self.records[-1].offset if self.records else 0
        after, until = self.tail.end, Position(self.begin.epoch, 1, last + 10, len(events))
        self.begin = until
        self.records = [Record(self.begin.epoch, 1, last + 10, tuple(events))]
        self.tail.restart(until)
        self.followers.lost(Lost(after, until, "retention overtook the reader"))

    def junk(self):
        """Let something come that can't be read, as a stream may hold: what stands before it can be read all the same."""
        after, junk = self.tail.end, Record(self.begin.epoch, self.begin.term, self.records[-1].offset + self.gap, ())
        self.records.append(junk)
        self.unreadable.add(junk)
        self.tail.restart(junk.end)
        self.followers.lost(Lost(after, junk.end, "it can't be read"))

    def follow(self, follower):
        self.followers.add(follower)

    def replay(self, after):
        self.replays += 1
        return self._answer(lambda: self._opened(after))

    def release(self):
        """Give the answers that were held."""
        held, self.held = self.held, []
        for answer in held:
            answer.callback(None)

    def answer_at_once(self):
        """Give the answers that were held, and hold none any more."""
        held, self.held = self.held or [], None
        for answer in held:
            answer.callback(None)

    def _opened(self, after):
        self._check(after)
        replay = Replay(self, after)
        self.open.append(replay)
        return replay

    def _check(self, after):
        if self.away:
            raise BusUnavailable("the broker is away")
        if after.epoch != self.begin.epoch:
            raise PositionLostError(Lost(after, self.begin, "the position is of another log"))
        if after < self.begin:
            raise PositionLostError(Lost(after, self.begin, "the log has let go of it"), begins=True)
        if after != self.begin and not any(record.begin <= after <= record.end for record in self.records):
            raise PositionLostError(Lost(after, self.tail.end, "the position is not in the log"))

    def _answer(self, make):
        if self.held is None:
            try:
                return succeed(make())
            except (BusUnavailable, PositionLostError) as error:
                return fail(error)
        waits = Deferred()
        self.held.append(waits)
        return waits.addCallback(lambda _: make())


@implementer(IReplay)
class Replay:
    def __init__(self, log, after):
        self._log, self._after = log, after

    def more(self):
        return self._log._answer(self._more)

    def _more(self):
        self._log._check(self._after)
        records = [record for record in self._log.records if record.end > self._after][: self._log.piece]
        good = list(takewhile(lambda record: record not in self._log.unreadable, records))
        if records and not good:
            raise PositionLostError(Lost(self._after, records[0].end, "it can't be read"))
        records = good
        if records:
            self._after = records[-1].end
        return records

    def close(self):
        self._log.open.remove(self)
