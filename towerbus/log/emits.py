"""What was emitted and is not in the log yet: bounded, each id once, confirmed together. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.defer import Deferred, succeed

from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.log.window import IdWindow

OVERHEAD = 500
"""Bytes that an event is counted as, beside its payload."""


class Entry:
    """The events of one emit that nobody emitted before.

    Attributes:
        events: They.
        size: Bytes that they are counted as.
    """

    __slots__ = ("_waiting", "events", "size")

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.size = sum(len(event.payload) for event in events) + OVERHEAD * len(events)
        self._waiting: list[_Waiter] = []

    def awaited(self, waiter: _Waiter) -> None:
        """Somebody wants to know what becomes of it."""
        self._waiting.append(waiter)

    def tell(self, error: NotConfirmed | None) -> None:
        """Tell those who wait what became of it."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.heard(self, error)


class _Waiter:
    """An emit that waits for its own entry, and for those of others that hold ids of its events."""

    __slots__ = ("_entries", "_failed", "_reason", "_some_taken", "outcome")

    def __init__(self, entries: dict[Entry, list[str]], some_taken: bool) -> None:
        self.outcome: Deferred[None] = Deferred()
        self._entries = entries
        self._some_taken = some_taken
        self._failed: list[str] = []
        self._reason = ""
        for entry in entries:
            entry.awaited(self)

    def heard(self, entry: Entry, error: NotConfirmed | None) -> None:
        ids = self._entries.pop(entry)
        if error is None or not error.sure:
            self._some_taken = True
        if error is not None:
            self._failed += ids
            self._reason = error.reason
        if self._entries:
            return
        if not self._failed:
            self.outcome.callback(None)
        elif self._some_taken:
            self.outcome.errback(NotConfirmed(self._reason, tuple(self._failed)))
        else:
            self.outcome.errback(BusUnavailable(self._reason, tuple(self._failed)))


class Emits:
    """All that was emitted and is not in the log yet.

    Args:
        window: The ids that are in the log; what gets into the log is added to it.
        max_bytes: Bytes of events that may wait, at the most. One emit that is larger is taken when nothing waits.
    """

    def __init__(self, window: IdWindow, max_bytes: int) -> None:
        self.window = window
        """May be replaced while nothing waits."""
        self._max_bytes = max_bytes
        self._by_id: dict[str, Entry] = {}
        self._queued: list[Entry] = []
        self.size = 0
        """Bytes that wait, also those that are being written."""

    @property
    def queued(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._queued)

    def put(self, events: Sequence[Event]) -> Deferred[None]:
        """Queue those of the events that are neither in the log nor under way.

        Returns:
            A Deferred that fires as `IIntake.emit` says.

        Raises:
            BusUnavailable: Too much waits already.
        """
        by_id = self._by_id
        fresh = self.window.unseen([event for event in events if event.id not in by_id] if by_id else events)
        if fresh:
            entry = Entry(fresh)
            if self.size and self.size + entry.size > self._max_bytes:
                raise BusUnavailable(
                    f"{self.size} bytes wait to be written, of {self._max_bytes} that may; come back later",
                    tuple(event.id for event in events),
                )
            self.size += entry.size
            self._queued.append(entry)
            for event in fresh:
                by_id[event.id] = entry
            if len(fresh) == len(events):
                return _Waiter({entry: [event.id for event in fresh]}, False).outcome
        under_way: dict[Entry, list[str]] = {}
        in_log = False
        for event in events:
            if event.id in by_id:
                under_way.setdefault(by_id[event.id], []).append(event.id)
            else:
                in_log = True
        return _Waiter(under_way, in_log).outcome if under_way else succeed(None)

    def take(self) -> list[Entry]:
        """Take all that is queued, to be written."""
        taken, self._queued = self._queued, []
        return taken

    def landed(self, entries: Iterable[Entry]) -> None:
        """They are in the log; `confirm` them when the log's followers let you."""
        for entry in entries:
            self._forget(entry)
            self.window.add(entry.events)

    def confirm(self, entries: Iterable[Entry]) -> None:
        """Confirm what has landed."""
        for entry in entries:
            self.size -= entry.size
            entry.tell(None)

    def doubt(self, entries: Iterable[Entry], reason: str) -> None:
        """Let nobody wait for them any longer; they are still being written."""
        for entry in entries:
            entry.tell(NotConfirmed(reason))

    def failed(self, entries: Iterable[Entry], error: NotConfirmed) -> None:
        """They were not written, or nobody knows."""
        for entry in entries:
            self._forget(entry)
            self.size -= entry.size
            entry.tell(error)

    def _forget(self, entry: Entry) -> None:
        for event in entry.events:
            del self._by_id[event.id]
