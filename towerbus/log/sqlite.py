"""`sqlite:PATH`: the embedded log that outlives its process, in a SQLite database. One process has it at a time.

An event is confirmed, and followers get it, only when it is on the disk, so nothing is ever delivered that a crash
takes back. While the file can't be written events are refused, and it is opened again each second until it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.defer import TimeoutError as WaitTimeoutError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.intake.interface import IIntake
from towerbus.log.age import AgeClock
from towerbus.log.followers import Followers
from towerbus.log.interface import ILog, ILogFollower, IReplay
from towerbus.log.one_thread import OneThread
from towerbus.log.pieces import in_tail
from towerbus.log.record import Record
from towerbus.log.sqlite_commits import Commits
from towerbus.log.sqlite_file import LogFileUnusable, meaning
from towerbus.log.sqlite_reader import Reader
from towerbus.log.sqlite_replay import SqliteReplay
from towerbus.log.sqlite_writer import Opened, Writer
from towerbus.log.tail import Tail
from towerbus.positions import Lost, Position

SQLITE_BYTES = 1024 * 1024 * 1024
"""Bytes that the file holds, unless configured otherwise."""
SQLITE_AGE = 24 * 3600.0
"""Seconds that it keeps them, unless configured otherwise."""
TAIL_BYTES = 32 * 1024 * 1024
"""Bytes of the newest events that are kept in memory, unless configured otherwise."""
QUEUE_BYTES = 16 * 1024 * 1024
"""Bytes of events that may wait to be written."""
TICK = 1.0
"""Seconds between two looks at what is too old, what does not come back, and whether the file can be written again."""
CLOSING = 5.0
"""Seconds that the file has to close."""

_log = Logger()


class _State(Enum):
    """What the log does with events: it takes them in `WRITING` only."""

    CLOSED = auto()
    WRITING = auto()
    STUCK = auto()  # a commit does not come back
    REFUSING = auto()  # writing failed
    REOPENING = auto()  # it failed, and is tried again
    STOPPING = auto()  # what is queued is still written


@implementer(ILog, IIntake)
class SqliteLog(Service):
    """The log and its intake at once. It must start before, and stop after, all who use it.

    Args:
        path: Of the database; made where there is none. Beside it stand the files of SQLite and one that locks it.
        reactor: Calls later, and from threads.
        max_bytes: Bytes of the file that hold something, at the most; the newest record is kept whatever its size.
        max_age: Seconds that a record is kept, at the most.
        tail_bytes: Bytes of the newest records that are kept in memory.
        queue_bytes: Bytes of events that may wait to be written.
        patience: Seconds after which a commit is said to be stuck, and that stopping waits for what is queued.
        seconds: Tells the time, in seconds that never jump.
        wall: Tells the time of Unix.
    """

    def __init__(
        self,
        path: str | Path,
        reactor: Any,
        *,
        max_bytes: int = SQLITE_BYTES,
        max_age: float = SQLITE_AGE,
        tail_bytes: int = TAIL_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        patience: float = 5.0,
        seconds: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        self._reactor = reactor
        self._patience = patience
        self._seconds = seconds
        clock = AgeClock(seconds, wall, max_age)
        self._writer = Writer(self.path, clock, max_bytes=max_bytes, tail_bytes=tail_bytes)
        self._reader = Reader(self.path, f"{max_age:g} s and {max_bytes} bytes")
        self.tail = Tail(Position("0", 0, 0, 0), max_bytes=tail_bytes, max_age=max_age, seconds=clock)
        self._followers = Followers()
        self._commits = Commits(
            write=lambda records: self._writing.run(self._writer.commit, records),
            deliver=self._deliver,
            written=self._written,
            not_written=self._refuse,
            queue_bytes=queue_bytes,
            seconds=seconds,
        )
        self._state = _State.CLOSED
        self.trouble: str | None = "the log is not open"
        """Why events are refused; None while they are taken."""
        self._troubled = 0.0
        self._cleaning = False
        self._not_cleaned = ""

    def startService(self) -> None:
        """Open the file; one that can't be used ends the process with a message and exit code 1."""
        super().startService()
        self._writing = OneThread(self._reactor, "log-writer")
        self._reading = OneThread(self._reactor, "log-reader")
        try:
            self._warm(self._writing.wait_for(self._writer.open))
        except LogFileUnusable as error:
            self._close_threads()
            raise SystemExit(f"towerbus: --bus sqlite:{self.path}: {error}") from error
        self._state, self.trouble = _State.WRITING, None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = self._reactor
        self._ticking.start(TICK, now=False).addErrback(_unexpected)
        _log.info("log_opened: {path}, up to {end}", path=str(self.path), end=str(self.tail.end))

    def stopService(self) -> Deferred[None]:
        """Write what is queued, in bounded time, and close the file."""
        super().stopService()
        if self._state is _State.CLOSED:
            return succeed(None)
        self._ticking.stop()
        return Deferred.fromCoroutine(self._stop())

    def emit(self, events: Sequence[Event]) -> Deferred[None]:
        """Put events in; they are confirmed when they are on the disk and the followers ask for no wait."""
        if self._state is not _State.WRITING:
            return fail(BusUnavailable(f"{self.trouble}; come back later", tuple(event.id for event in events)))
        try:
            return self._commits.put(events)
        except BusUnavailable as error:
            return fail(error)

    def follow(self, follower: ILogFollower) -> None:
        """Hand every record from now on to the follower."""
        self._followers.add(follower)

    def replay(self, after: Position) -> Deferred[IReplay]:
        """Read what stands behind a position, from memory or from the file."""
        replay: IReplay = SqliteReplay(self.tail, self._reader, self._read, after)
        if in_tail(self.tail, after):
            return succeed(replay)
        return self._read(self._reader.check, after, self.tail.end).addCallback(lambda _: replay)

    async def clean(self) -> None:
        """Let go of what is too old or too much, step by step. It happens by itself, too."""
        while self._state is _State.WRITING and await self._writing.run(self._writer.clean):
            pass

    def _read(self, function: Callable[..., Any], *args: object) -> Deferred[Any]:
        if self._state in {_State.CLOSED, _State.REOPENING}:
            return fail(BusUnavailable(f"{self.trouble}; come back later"))
        return self._reading.run(function, *args)

    def _deliver(self, record: Record) -> Deferred[None]:
        self.tail.append(record)
        return self._followers.deliver(record)

    def _written(self, dirty: bool) -> None:
        if self._state is _State.STUCK:
            self._recovered()
        if dirty:
            self._clean()

    def _refuse(self, error: NotConfirmed) -> None:
        """Writing failed: refuse events until it works again."""
        trouble = f"the log can't be written: {error.reason}"
        if self._state is not _State.STOPPING:
            self._troubled_by(_State.REFUSING, trouble)
        self._commits.refuse(type(error)(trouble))

    def _troubled_by(self, state: _State, trouble: str) -> None:
        if trouble != self.trouble:
            _log.error("log_unwritable: {reason}", reason=trouble, path=str(self.path))
        if self.trouble is None:
            self._troubled = self._seconds()
        self._state, self.trouble = state, trouble

    def _recovered(self) -> None:
        self._state, self.trouble = _State.WRITING, None
        _log.info("log_writable_again: after {seconds:.0f} s", seconds=self._seconds() - self._troubled)

    def _tick(self) -> None:
        if self._state is _State.REFUSING:
            Deferred.fromCoroutine(self._reopen()).addErrback(_unexpected)
        elif self._commits.taking > self._patience:
            self._troubled_by(_State.STUCK, f"the disk has not answered for {self._patience:g} s")
            self._commits.doubt(str(self.trouble))
        elif self._state is _State.WRITING:
            self._clean()

    async def _reopen(self) -> None:
        self._state = _State.REOPENING
        try:
            await self._reading.run(self._reader.close)
            opened = await self._writing.run(self._writer.open, self.tail.end)
            if self._state is _State.REOPENING:
                self._resume(opened)
        except LogFileUnusable as error:
            self._not_reopened(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the file may be good again in a second
            if self._not_reopened(f"{type(error).__name__}: {error}"):
                _log.failure("log_failed")

    def _not_reopened(self, reason: str) -> bool:
        """Go on refusing, and trying; whether there is a new reason."""
        trouble = f"the log can't be written: {reason}"
        if self._state is not _State.REOPENING:
            return False
        new = trouble != self.trouble
        self._troubled_by(_State.REFUSING, trouble)
        return new

    def _warm(self, opened: Opened) -> None:
        """Begin with what was found in the file."""
        first = opened.newest[0][0]
        self.tail.restart(opened.begin if opened.begin.offset + 1 == first.offset else first.begin)
        for record, at in opened.newest:
            self.tail.append(record, at)
        self._commits.go_on(self.tail.end, opened.term, opened.window)

    def _resume(self, opened: Opened) -> None:
        """Go on with what was found in the file: the same log as far as it goes, or another one."""
        before = self.tail.end
        self._warm(opened)
        self._recovered()
        if not opened.continues:
            _log.warn("log_replaced: positions up to {before} are lost", before=str(before), path=str(self.path))
            self._followers.lost(Lost(before, self.tail.end, "the log was made anew, or restored from a copy"))
            return
        # What nobody could say of has been written after all, if it is there.
        for record, _ in opened.newest:
            if record.end > before:
                self._followers.deliver(record)

    def _clean(self) -> None:
        if not self._cleaning:
            self._cleaning = True
            Deferred.fromCoroutine(self.clean()).addCallbacks(self._cleaned, self._clean_failed)

    def _cleaned(self, _: None) -> None:
        self._cleaning = False
        self._not_cleaned = ""

    def _clean_failed(self, failure: Failure) -> None:
        self._cleaning = False
        reason = meaning(failure.value)
        if isinstance(failure.value, BusUnavailable):
            # A commit that is under way finds out itself.
            if self._state is _State.WRITING and not self._commits.under_way:
                self._refuse(failure.value)
        elif reason != self._not_cleaned:
            self._not_cleaned = reason
            _log.warn("log_not_cleaned: old records stay: {reason}", reason=reason, path=str(self.path))

    async def _stop(self) -> None:
        self._state, self.trouble = _State.STOPPING, self.trouble or "the log is being closed"
        try:
            await self._commits.drained().addTimeout(self._patience, self._reactor)
        except WaitTimeoutError:
            self._commits.refuse(NotConfirmed("the log was closed while the events were written"))
        self._commits.confirm_landed()
        closing = [self._reading.run(self._reader.close), self._writing.run(self._writer.close)]
        await gatherResults(closing).addTimeout(CLOSING, self._reactor).addErrback(_unexpected)
        self._close_threads()
        self._state, self.trouble = _State.CLOSED, "the log is not open"
        _log.info("log_closed: {path}", path=str(self.path))

    def _close_threads(self) -> None:
        self._writing.close()
        self._reading.close()


def _unexpected(failure: Failure) -> None:
    _log.failure("log_failed", failure)
