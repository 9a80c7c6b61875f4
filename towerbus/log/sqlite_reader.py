"""The reading side of the embedded log: older records and positions. Everything here blocks; called in one thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from towerbus.errors import BusUnavailable, PositionLostError
from towerbus.log.packing import NotARecord, unpack
from towerbus.log.record import Record
from towerbus.log.sqlite_file import Identity, LogFileUnusable, connect_to_read, identity, meaning
from towerbus.positions import Lost, Position

PIECE = 256 * 1024
"""Bytes in a piece, about: one record more than fits."""


class Reader:
    """Reads the log beside its writer.

    Args:
        path: Of the database.
        kept_for: How long records are kept, for a person.
    """

    def __init__(self, path: Path, kept_for: str) -> None:
        self._path = path
        self._kept_for = kept_for
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def check(self, after: Position, end: Position) -> None:
        """Check that the log has all that is behind a position.

        Args:
            after: The position.
            end: The end of the log, as far as its followers have it.

        Raises:
            PositionLostError: It does not.
            BusUnavailable: It can't be read.
        """
        with self._snapshot() as connection:
            _check(connection, after, end, self._kept_for)

    def read(self, after: Position, end: Position, piece: int = PIECE) -> Sequence[Record]:
        """Read the next records behind a position, up to the end; none where there are none.

        Raises:
            PositionLostError: Not all of them are there; `check` would say so too, or the next of them is damaged.
            BusUnavailable: The log can't be read.
        """
        records: list[Record] = []
        with self._snapshot() as connection:
            _check(connection, after, end, self._kept_for)
            rows = connection.execute(
                "SELECT offset, term, events, data FROM records WHERE offset BETWEEN ? AND ? ORDER BY offset",
                (after.offset, end.offset),
            )
            size = 0
            for offset, term, events, data in rows:
                last = Position(end.epoch, term, offset, events)
                if last <= after:
                    continue
                try:
                    records.append(unpack(data, offset))
                except NotARecord as error:
                    if records:
                        break
                    raise PositionLostError(Lost(after, last, f"a part of the log is damaged: {error}")) from error
                size += len(data)
                if size >= piece:
                    break
            rows.close()
        return records

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """One state of the database, for several statements."""
        try:
            if self._connection is None:
                self._connection = connect_to_read(self._path)
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")
        except (sqlite3.Error, LogFileUnusable) as error:
            self.close()
            raise BusUnavailable(f"the log can't be read: {meaning(error)}") from error


def _check(connection: sqlite3.Connection, after: Position, end: Position, kept_for: str) -> None:
    log = identity(connection)
    if after.epoch != log.epoch:
        raise PositionLostError(Lost(after, log.begin, "the position is of another log: it was made anew"))
    if after > end:
        raise PositionLostError(Lost(after, end, "the position is past the end of the log"))
    if after == log.begin:
        return
    row = connection.execute("SELECT term, events FROM records WHERE offset = ?", (after.offset,)).fetchone()
    if row is not None and row[0] == after.term and after.place <= row[1]:
        return
    if after < log.begin and after.offset <= log.begin.offset:
        raise PositionLostError(Lost(after, log.begin, f"the log is kept for {kept_for} only"), begins=True)
    reason = "the position is not in the log: it was restored from a copy"
    raise PositionLostError(Lost(after, _first_behind(connection, after, log, end), reason))


def _first_behind(connection: sqlite3.Connection, after: Position, log: Identity, end: Position) -> Position:
    """The begin of the first record that stands behind a position which is in no record.

    Terms rise with the offsets, so it is found by halving what it must be in.
    """
    low, high = log.begin.offset + 1, end.offset
    found = end
    while low <= high:
        middle = (low + high) // 2
        row = connection.execute(
            "SELECT offset, term FROM records WHERE offset >= ? ORDER BY offset LIMIT 1", (middle,)
        ).fetchone()
        if row is None or row[0] > high:
            high = middle - 1
        elif Position(log.epoch, row[1], row[0], 0) > after:
            found = Position(log.epoch, row[1], row[0], 0)
            high = middle - 1
        else:
            low = row[0] + 1
    return min(found, end)
