"""The readings of the log: who waits in line for one, where they begin, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.catchup.limits import TICK
from towerbus.catchup.member import Line, Member
from towerbus.catchup.shared import Reading
from towerbus.catchup.station import Station
from towerbus.errors import BusUnavailable, PositionLostError
from towerbus.interest import Opens
from towerbus.log.interface import ILog
from towerbus.positions import Lost, Position

_log = Logger()

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
"""Seconds between attempts to read a log that can't be read; the pause doubles."""


class Readings:
    """The readings, a few at a time.

    Args:
        log: The log.
        station: Where members come from, and where they go.
        opens: Tells which badges let see a topic.
        seconds: Tells the time, in seconds that never jump.

    Attributes:
        line: Those who wait until a reading comes by.
    """

    def __init__(self, log: ILog, station: Station, opens: Opens, seconds: Callable[[], float]) -> None:
        self._log = log
        self._station = station
        self._opens = opens
        self._seconds = seconds
        self._open: list[Reading] = []
        self._pause = self._pauses_until = self._looked = 0.0
        self.line = Line()

    def __bool__(self) -> bool:
        return bool(self._open) or len(self.line) > 0

    def add(self, member: Member) -> None:
        """Let a member wait for a reading that comes by its place."""
        member.queued = self._seconds()
        self.line.add(member)
        self._station.wake()

    def drop(self, member: Member) -> None:
        """A member is gone."""
        self.line.remove(member)
        for reading in self._open:
            reading.drop(member)

    def go_on(self, until: float) -> bool:
        """Read on until a time; whether there is more to be done at once."""
        busy = list(self._open)
        while busy and self._seconds() < until:
            busy = [reading for reading in busy if self._stepped(reading)]
        self._open = [reading for reading in self._open if not reading.closed]
        now = self._seconds()
        if now - self._looked < TICK / 2:
            return bool(busy)
        self._looked = now
        if self._pause:
            self._give_up(now)
        return (now >= self._pauses_until and self._begin(now)) or bool(busy)

    def close(self) -> None:
        """Read no more."""
        for reading in self._open:
            reading.close()
        self._open.clear()

    # For the readings

    def read(self) -> None:
        """The log can be read, and has answered."""
        self._pause = self._pauses_until = 0.0
        self._station.wake(soon=True)

    def lost(self, reading: Reading, error: PositionLostError) -> None:
        """The log does not have what a reading wants next."""
        lost, members = error.lost, reading.dismiss()
        if lost.until.epoch != reading.place.epoch:
            # The log was made anew, which concerns everybody.
            for member in self.line.clear():
                self._station.ready(member)
        at = reading.place
        members += self.line.take(at, at._replace(place=at.place + 1))
        if error.begins:
            members += self.line.take(Position(at.epoch, 0, 0, 0), lost.until)
        for member in members:
            assert member.place is not None  # noqa: S101 - it has been waiting at one
            member.lost = Lost(member.place, lost.until, lost.reason)
            self._station.ready(member)

    def unreadable(self, reading: Reading, failure: Failure) -> None:
        """The log can't be read now: try again, with growing pauses."""
        if failure.check(BusUnavailable):
            _log.warn("log_unreadable: {reason}", reason=failure.getErrorMessage())
        else:
            _log.failure("log_unreadable", failure)
        now = self._seconds()
        self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self._pauses_until = now + self._pause
        for member in reading.dismiss():
            self.add(member)
        for member in self.line:
            if member.hoping is None:
                member.hoping = now
        self._station.wake()

    def _stepped(self, reading: Reading) -> bool:
        """Let a reading do something; a fault of ours ends only that one, or one member of it."""
        try:
            return reading.step()
        except Exception:  # noqa: BLE001 - whatever it is, the others must get on
            if reading.serving is None:
                self.unreadable(reading, Failure())
                return False
            # In the middle of a piece: the others get theirs, and of this one nobody can say what it has.
            _log.failure("catch_up_failed")
            self._station.unavailable(reading.serving, "an internal error")
            return True

    def _begin(self, now: float) -> bool:
        """Begin readings where they are wanted; whether one has begun."""
        begun = False
        while (place := self._wanted(now)) is not None:
            most = 1 if self._pause else self._station.limits.readings
            if len(self._open) >= most and not self._close_an_idle_one():
                break
            self._station.counts.readings += 1
            self._open.append(Reading(self._log, self, self._station, self._opens, self._seconds, place))
            begun = True
        return begun

    def _wanted(self, now: float) -> Position | None:
        """Where a reading should begin: where none comes by, or none comes soon."""
        limits, oldest, first = self._station.limits, self.line.first(), self.line.longest
        if oldest is None or oldest.place is None or first is None:
            return None
        waited = now - first.queued
        if all(reading.place > oldest.place for reading in self._open):
            # While a crowd comes in, more of it is likely to want the same.
            return oldest.place if waited >= (limits.hurry if self._station.is_crowded else limits.gather) else None
        if waited < limits.hurry:
            return None
        for member in self.line:
            # They are reached soon now, all of them that stand behind it.
            member.queued = now
        return first.place

    def _close_an_idle_one(self) -> bool:
        for reading in self._open:
            if reading.idle is not None:
                reading.close()
                self._open.remove(reading)
                return True
        return False

    def _give_up(self, now: float) -> None:
        """Send those away who have waited long enough for a log that can't be read."""
        for member in self.line:
            if member.hoping is not None and now - member.hoping > self._station.limits.patience:
                self._station.unavailable(member, "the log can't be read now")
