"""The writing side of the embedded log. Everything here blocks, and is called in one thread."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.log.age import AgeClock
from towerbus.log.packing import NotARecord, pack, unpack
from towerbus.log.record import Record
from towerbus.log.sqlite_file import Lock, LogFileUnusable, connect, identity, in_doubt, meaning
from towerbus.log.window import SIZE, IdWindow
from towerbus.positions import Position

AT_ONCE = 100
"""Records that one statement writes, at the most: old editions of SQLite take 999 values."""
STEP_RECORDS = 512
"""Records that one step of cleaning lets go of, at the most."""
STEP_BYTES = 1024 * 1024
"""Bytes that one step of cleaning lets go of, about; more where more was written since the last step."""
STEP_PAGES = 256
"""Pages that one step gives back to the file system, at the most."""
LOOK_BYTES = 256 * 1024
"""Bytes that are written between two looks at the size of the file."""
CHECKPOINT_BYTES = 4 * 1024 * 1024
"""Bytes that are written before they are moved from the write-ahead log into the database."""
GONE = "its file was removed or replaced"
"""What is said when the path leads to another file than the one that is open, or to none."""
PAGE = 4096
"""Bytes in a page, where the file does not say otherwise: what a commit costs beside its records, about."""


class Opened(NamedTuple):
    """What was found in the file when it was opened.

    Attributes:
        term: Of what is written from now on.
        begin: The position of the last event that the log let go of.
        newest: The newest records with the time of each, in order; enough for the tail.
        window: The ids of the newest events.
        continues: Whether the position that was known before is in this log.
    """

    term: int
    begin: Position
    newest: list[tuple[Record, float]]
    window: IdWindow
    continues: bool


class Writer:
    """Writes the log.

    Args:
        path: Of the database.
        clock: Tells the age of records.
        max_bytes: Bytes of the database that hold something, at the most; the newest record is kept whatever its size.
        tail_bytes: Bytes of the newest records that are read when it is opened, at the least.
    """

    def __init__(self, path: Path, clock: AgeClock, *, max_bytes: int, tail_bytes: int) -> None:
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._tail_bytes = tail_bytes
        self._lock = Lock(path)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)
        self._page_size = PAGE
        self._in_journal = self._since_step = self._since_look = 0

    def open(self, known: Position | None = None) -> Opened:
        """Open the file, again if it was open, and begin a new term with a fence.

        Args:
            known: The end of the log as it was known before.

        Raises:
            LogFileUnusable: The file can't be used.
        """
        self.close()
        try:
            if self._path.is_dir():
                raise LogFileUnusable("it is a directory; name a file in it")
            self._lock.take()
            self._connection = connect(self._path)
            self._file = _inode(self._path)
            (self._page_size,) = self._execute("PRAGMA page_size").fetchone()
            self._checkpoint("TRUNCATE")
            return self._begin_term(known)
        except (LogFileUnusable, NotARecord, sqlite3.Error, OSError) as error:
            self.close()
            raise LogFileUnusable(meaning(error)) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            # SQLite would leave the write-ahead log of a file that was moved to the next one at its path.
            with suppress(sqlite3.Error):
                self._checkpoint("TRUNCATE")
            self._connection.close()
            self._connection = None
        self._lock.release()

    def commit(self, records: Sequence[Record]) -> bool:
        """Write records; they are on the disk when it returns.

        Returns:
            Whether there is something to clean.

        Raises:
            BusUnavailable: None of them was written.
            NotConfirmed: Nobody knows.
        """
        at, wall = self._clock(), self._clock.wall()
        rows = [(each.offset, each.term, len(each.events), at, wall, pack(each)) for each in records]
        try:
            if len(rows) <= AT_ONCE:
                self._insert(rows)
            else:
                with self._transaction():
                    self._insert(rows)
        except sqlite3.Error as error:
            raise (NotConfirmed if in_doubt(error) else BusUnavailable)(meaning(error)) from error
        if _inode(self._path) != self._file:
            raise NotConfirmed(GONE)
        return self._dirty(sum(len(row[-1]) + PAGE for row in rows))

    def clean(self) -> bool:
        """Do one small step: let go of old records, give room back to the file system, empty the write-ahead log.

        Returns:
            Whether there is more to do.

        Raises:
            BusUnavailable: The file is gone.
            sqlite3.Error: Something failed that may be none of a commit's business, such as damage to an old part.
        """
        if self._connection is None:
            return False
        if _inode(self._path) != self._file:
            raise BusUnavailable(GONE)
        more = self._let_go() or self._shrink()
        if self._in_journal >= CHECKPOINT_BYTES:
            self._checkpoint("PASSIVE")
        return more

    def _begin_term(self, known: Position | None) -> Opened:
        log = identity(self._connected)
        last = self._execute("SELECT offset, at, wall FROM records ORDER BY offset DESC LIMIT 1").fetchone()
        offset = log.begin.offset
        if last is not None:
            offset, at, wall = last
            self._clock.resume(at, wall)
        # The present time, so that a file restored from an old copy takes up no term of its lost future.
        term = max(log.term + 1, int(self._clock.wall()))
        fence = Record(log.epoch, term, offset + 1, ())
        continues = known is None or known == log.begin or self._has(known, log.epoch)
        with self._transaction():
            self._execute("UPDATE log SET term = ?", term)
            self._insert([(fence.offset, term, 0, self._clock(), self._clock.wall(), pack(fence))])
        newest, window = self._newest(known.offset if known is not None and continues else fence.offset)
        return Opened(term, log.begin, newest, window, continues)

    def _has(self, position: Position, epoch: str) -> bool:
        row = self._execute("SELECT term, events FROM records WHERE offset = ?", position.offset).fetchone()
        return position.epoch == epoch and row is not None and row[0] == position.term and row[1] >= position.place

    def _newest(self, known: int) -> tuple[list[tuple[Record, float]], IdWindow]:
        """The newest records, enough for the tail and all behind an offset; and the ids that are in the log."""
        events = size = first = first_in_tail = 0
        counted = self._execute("SELECT offset, events, length(data) FROM records ORDER BY offset DESC")
        for first, count, length in counted:
            if first > known or size < self._tail_bytes or not first_in_tail:
                first_in_tail = first
            events += count
            size += length
            if events >= SIZE and size >= self._tail_bytes and first <= known:
                break
        counted.close()
        newest, window = [], IdWindow()
        for offset, at, data in self._execute(
            "SELECT offset, at, data FROM records WHERE offset >= ? ORDER BY 1", first
        ):
            record = unpack(data, offset)
            window.add(record.events)
            if offset >= first_in_tail:
                newest.append((record, at))
        return newest, window

    def _let_go(self) -> bool:
        """Let go of the oldest records; whether that was not all that has to go."""
        over = self._used() - self._max_bytes
        if over > 0:
            over += self._max_bytes // 16
        enough = max(STEP_BYTES, 2 * self._since_step)
        oldest, size, last = self._clock.oldest, 0, None
        rows = self._execute(
            "SELECT offset, term, events, at, length(data), offset = (SELECT max(offset) FROM records) "
            "FROM records ORDER BY offset LIMIT ?",
            STEP_RECORDS,
        )
        for offset, term, events, at, length, newest in rows.fetchall():
            if size >= enough or not (at < oldest or (size < over and not newest)):
                break
            size += length
            last = (term, offset, events)
        self._since_step = 0
        if last is None:
            return False
        # Should a crash take it back, it will be done again: no need to wait for the disk.
        self._execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction():
                self._execute("UPDATE log SET begin_term = ?, begin_offset = ?, begin_place = ?", *last)
                self._execute("DELETE FROM records WHERE offset <= ?", last[1])
        finally:
            self._execute("PRAGMA synchronous = FULL")
        self._in_journal += size
        return True

    def _shrink(self) -> bool:
        """Give free pages back, if they are many; whether there are more."""
        (free,) = self._execute("PRAGMA freelist_count").fetchone()
        (pages,) = self._execute("PRAGMA page_count").fetchone()
        if free <= STEP_PAGES + pages // 8:
            return False
        # `execute` would do only the first of its steps.
        self._connected.executescript(f"PRAGMA incremental_vacuum({STEP_PAGES})")
        self._in_journal += STEP_PAGES * self._page_size
        return True

    def _dirty(self, written: int) -> bool:
        """Whether there is something to clean, after so many bytes more."""
        self._in_journal += written
        self._since_step += written
        self._since_look += written
        if self._in_journal >= CHECKPOINT_BYTES:
            return True
        if self._since_look < min(LOOK_BYTES, self._max_bytes // 16):
            return False
        self._since_look = 0
        return self._used() > self._max_bytes

    def _used(self) -> int:
        """Bytes of the database that hold something."""
        (free,) = self._execute("PRAGMA freelist_count").fetchone()
        (pages,) = self._execute("PRAGMA page_count").fetchone()
        used: int = (pages - free) * self._page_size
        return used

    def _checkpoint(self, mode: str) -> None:
        busy, in_log, moved = self._execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        self._in_journal = 0 if not busy and in_log == moved else CHECKPOINT_BYTES // 2

    @property
    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise BusUnavailable("the file is not open")
        return self._connection

    def _execute(self, statement: str, *given: object) -> sqlite3.Cursor:
        return self._connected.execute(statement, given)

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        # One statement is one turn with the interpreter's lock; a busy reactor gives it away each 5 ms only.
        for begin in range(0, len(rows), AT_ONCE):
            some = rows[begin : begin + AT_ONCE]
            places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(some))
            self._execute(f"INSERT INTO records VALUES {places}", *chain.from_iterable(some))  # noqa: S608

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """Undo what was begun; SQLite has done it itself after some errors."""
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()


def _inode(path: Path) -> tuple[int, int]:
    """Which file a path leads to."""
    try:
        found = os.stat(path)  # noqa: PTH116 - once per commit: Path.stat costs three times as much
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
