"""The window of ids: which events are in the log already, so that one emitted again is not repeated. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from towerbus.event import Event

SIZE = 100_000
"""Ids that are remembered, at the most: the newest."""


class IdWindow:
    """The ids of the newest events in the log.

    Args:
        size: How many are remembered.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        # A dict would walk over all that it let go of to find its first key.
        self._seen: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def unseen(self, events: Iterable[Event]) -> list[Event]:
        """Those of the events that are not in the log, each id once."""
        fresh: dict[str, Event] = {}
        for event in events:
            if event.id not in self._seen:
                fresh.setdefault(event.id, event)
        return list(fresh.values())

    def add(self, events: Iterable[Event]) -> None:
        """Remember events that are in the log."""
        for event in events:
            self._seen[event.id] = None
        while len(self._seen) > self._size:
            self._seen.popitem(last=False)
