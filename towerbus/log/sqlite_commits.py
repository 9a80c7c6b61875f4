"""The embedded log's commits, one at a time: all that is queued when one begins goes into it. No I/O of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.log.emits import Emits, Entry
from towerbus.log.record import Record, batches
from towerbus.log.window import IdWindow
from towerbus.positions import Position

_log = Logger()


class _Commit(NamedTuple):
    entries: list[Entry]
    records: list[Record]
    since: float


class Commits:
    """What becomes of emits.

    Args:
        write: Writes records in another thread; fires when they are on the disk, with whether the file wants cleaning;
            fails with `BusUnavailable` or `NotConfirmed`.
        deliver: Hands a record that is on the disk to the tail and the followers; fires when they ask for no wait.
        written: Called after each commit with what `write` said.
        not_written: Called with what went wrong. It has to call `refuse`.
        queue_bytes: Bytes of events that may wait.
        seconds: Tells the time, in seconds that never jump.
    """

    def __init__(
        self,
        *,
        write: Callable[[list[Record]], Deferred[bool]],
        deliver: Callable[[Record], Deferred[None]],
        written: Callable[[bool], None],
        not_written: Callable[[NotConfirmed], None],
        queue_bytes: int,
        seconds: Callable[[], float],
    ) -> None:
        self._write = write
        self._deliver = deliver
        self._written = written
        self._not_written = not_written
        self._seconds = seconds
        self._emits = Emits(IdWindow(), queue_bytes)
        self._epoch, self._term, self._next = "0", 0, 0
        self._under_way: _Commit | None = None
        self._landed: list[list[Entry]] = []
        self._idle: Deferred[None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether something is being written."""
        return self._under_way is not None

    @property
    def taking(self) -> float:
        """Seconds that the commit under way has taken; 0 where there is none."""
        return self._seconds() - self._under_way.since if self._under_way is not None else 0.0

    def go_on(self, end: Position, term: int, window: IdWindow) -> None:
        """Write behind this end from now on; nothing may be under way.

        Args:
            end: Of the log.
            term: Of what is written.
            window: The ids that are in the log.
        """
        self._epoch, self._term, self._next = end.epoch, term, end.offset + 1
        self._emits.window = window

    def put(self, events: Sequence[Event]) -> Deferred[None]:
        """Queue events, and begin a commit where none is under way.

        Returns:
            A Deferred that fires as `IIntake.emit` says.

        Raises:
            BusUnavailable: Too much waits already.
        """
        outcome = self._emits.put(events)
        self._begin()
        return outcome

    def doubt(self, reason: str) -> None:
        """The commit under way does not come back: let nobody wait for it, nor for what is queued behind it."""
        if self._under_way is not None:
            self._emits.doubt(self._under_way.entries, reason)
        self._emits.failed(self._emits.take(), BusUnavailable(reason))

    def refuse(self, error: NotConfirmed) -> None:
        """What is under way fails with this error; what is queued behind it surely is not written."""
        commit, self._under_way = self._under_way, None
        if commit is not None:
            self._emits.failed(commit.entries, error)
        self._emits.failed(self._emits.take(), BusUnavailable(error.reason))
        self._begin()

    def drained(self) -> Deferred[None]:
        """Wait until all is written that was put in; nothing may be put in from then on."""
        self._idle = Deferred()
        idle = self._idle
        self._begin()
        return idle

    def confirm_landed(self) -> None:
        """Confirm all that is on the disk, whatever the followers ask for."""
        for entries in tuple(self._landed):
            self._confirm(None, entries)

    def _begin(self) -> None:
        if self._under_way is not None:
            return
        if self._emits.queued:
            entries = self._emits.take()
            events = [event for entry in entries for event in entry.events]
            records = [
                Record(self._epoch, self._term, offset, batch)
                for offset, batch in enumerate(batches(events), self._next)
            ]
            self._under_way = _Commit(entries, records, self._seconds())
            self._write(records).addCallbacks(self._came_back, self._failed)
        elif self._idle is not None:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _came_back(self, dirty: bool) -> None:
        commit, self._under_way = self._under_way, None
        if commit is None:  # it was given up when the log was closed
            return
        self._next += len(commit.records)
        self._emits.landed(commit.entries)
        self._landed.append(commit.entries)
        # The disk works on while the followers get these.
        self._begin()
        waits = [self._deliver(record) for record in commit.records]
        gatherResults(waits).addCallback(self._confirm, commit.entries)
        self._written(dirty)

    def _confirm(self, _: object, entries: list[Entry]) -> None:
        if entries in self._landed:
            self._landed.remove(entries)
            self._emits.confirm(entries)

    def _failed(self, failure: Failure) -> None:
        if self._under_way is None:
            return
        error = failure.value
        if not isinstance(error, NotConfirmed):
            _log.failure("commit_failed", failure)
            error = NotConfirmed("internal error")
        self._not_written(error)
