"""Reads older records of the embedded log from its file, piece by piece, and newer ones from the tail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from towerbus.log.interface import IReplay
from towerbus.log.pieces import from_tail, in_tail
from towerbus.log.record import Record
from towerbus.log.sqlite_reader import PIECE, Reader
from towerbus.log.tail import Tail
from towerbus.positions import Position


@implementer(IReplay)
class SqliteReplay:
    """One that reads. However many there are, one piece is read at a time, in the order in which they ask.

    Args:
        tail: The newest records.
        reader: Reads the file.
        run: Calls the reader in its thread.
        after: Where it begins.
    """

    def __init__(self, tail: Tail, reader: Reader, run: Callable[..., Deferred[Any]], after: Position) -> None:
        self._tail = tail
        self._reader = reader
        self._run = run
        self._after = after

    def more(self) -> Deferred[Sequence[Record]]:
        """Read the next records."""
        if in_tail(self._tail, self._after):
            return succeed(self._given(from_tail(self._tail, self._after, PIECE)))
        return self._run(self._reader.read, self._after, self._tail.end).addCallback(self._given)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _given(self, records: Sequence[Record]) -> Sequence[Record]:
        if records:
            self._after = records[-1].end
        return records
