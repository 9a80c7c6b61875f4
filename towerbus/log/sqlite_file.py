"""The database file of the embedded log: who may have it, what it must be, and what its errors mean."""

from __future__ import annotations

import fcntl
import os
import platform
import sqlite3
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from towerbus.errors import ConfigError
from towerbus.log.packing import NotARecord
from towerbus.positions import Position, new_epoch

APPLICATION = 0x746F7762
"""What marks the file as ours: "towb", in SQLite's `application_id`."""
SCHEMA = 1
"""The form of the tables, in SQLite's `user_version`."""
BUSY = 2.0
"""Seconds to wait for another program that has the database locked."""
WAL_LIMIT = 16 * 1024 * 1024
"""Bytes of the write-ahead log that are left to be used again."""

_TABLES = (
    """CREATE TABLE log (
        epoch TEXT NOT NULL,
        term INTEGER NOT NULL,
        begin_term INTEGER NOT NULL, begin_offset INTEGER NOT NULL, begin_place INTEGER NOT NULL
    )""",
    """CREATE TABLE records (
        offset INTEGER PRIMARY KEY,
        term INTEGER NOT NULL,
        events INTEGER NOT NULL, -- how many it holds
        at REAL NOT NULL,        -- when it was written, by a clock that never jumps (towerbus/log/age.py)
        wall REAL NOT NULL,      -- the same by the wall clock
        data BLOB NOT NULL       -- towerbus/log/packing.py
    )""",
)

_MEANINGS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room",
    sqlite3.SQLITE_BUSY: "another program has it locked; end that one (a sqlite3 shell, a backup)",
    sqlite3.SQLITE_READONLY: "it can't be written; mend its permissions, or mount its file system writable",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened; look at its permissions and those of its directory",
    sqlite3.SQLITE_IOERR: "the disk fails, or a limit of file sizes is reached; look at the kernel's log and ulimit -f",
    sqlite3.SQLITE_NOTADB: "it is no database; choose another path",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a copy, or move it away for a new log to begin",
}
_BEFORE_THE_FLUSH = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
}


class LogFileUnusable(ConfigError):
    """The log's file can't be used; the text says why, and what to do."""


class Identity(NamedTuple):
    """What the log says of itself.

    Attributes:
        epoch: Its identity.
        term: The newest term.
        begin: The position of the last event that it let go of.
    """

    epoch: str
    term: int
    begin: Position


class Lock:
    """Keeps other processes from the log. The kernel lifts it when its process ends, however that ends.

    Args:
        path: Of the database; the lock is a file beside it, which stays.
        what: What it is that only one process may have, for the text.
    """

    def __init__(self, path: Path, what: str = "file") -> None:
        self._what = what
        self.path = path.with_name(path.name + ".lock")
        self._file: int | None = None

    def take(self) -> None:
        """Take it.

        Raises:
            LogFileUnusable: Another process has it, or the directory does not allow it.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogFileUnusable(_cannot_lock(self.path, error)) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = os.read(file, 200).decode(errors="replace").strip()
            os.close(file)
            if isinstance(error, BlockingIOError):
                text = f"in use by {who or 'another process'}; stop that one, or give each a {self._what} of its own"
                raise LogFileUnusable(text) from error
            raise LogFileUnusable(_cannot_lock(self.path, error)) from error
        self._file = file
        name = Path(sys.argv[0]).name
        with suppress(OSError):  # on a full disk it goes without a name
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} ({name} on {platform.node()}, since {time.ctime()})\n".encode(), 0)

    def release(self) -> None:
        """Let others have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for writing; make it where there is none.

    Raises:
        LogFileUnusable: It is not, or can't be, the database of a log.
        sqlite3.Error: It can't be read or written; `meaning` says why.
    """
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise LogFileUnusable(_MEANINGS[sqlite3.SQLITE_READONLY])
    if not path.exists():
        # Events may be for few eyes; SQLite gives its other files the same permissions.
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    try:
        check(connection)
        # Before the journal: no part of a database that is not ours may change.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if journal != "wal":
            raise LogFileUnusable(f"its file system allows no write-ahead log (got {journal}); choose a local disk")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        _create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the database that somebody writes in this process."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=BUSY, isolation_level=None, uri=True)
    connection.execute("PRAGMA query_only = ON")
    return connection


def beside(path: Path) -> tuple[Path, ...]:
    """The files that SQLite keeps beside a database while somebody has it open, and after a crash."""
    return tuple(path.with_name(path.name + ending) for ending in ("-wal", "-shm"))


def connect_to_look(path: Path) -> sqlite3.Connection:
    """Open the database for a look from another process, which may be there or not; nothing is written.

    SQLite would leave its two files behind where nobody has the database open: there it is told that nothing changes.
    """
    alone = not any(each.exists() for each in beside(path))
    uri = f"{path.as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    connection = sqlite3.connect(uri, timeout=BUSY, isolation_level=None, uri=True)
    connection.execute("PRAGMA query_only = ON")
    return connection


def identity(connection: sqlite3.Connection) -> Identity:
    """Read what the log says of itself.

    Raises:
        LogFileUnusable: It says nothing.
    """
    row = connection.execute("SELECT epoch, term, begin_term, begin_offset, begin_place FROM log").fetchone()
    if row is None:
        raise LogFileUnusable(_MEANINGS[sqlite3.SQLITE_CORRUPT])
    epoch, term, *begin = row
    return Identity(epoch, term, Position(epoch, *begin))


def meaning(error: BaseException | None) -> str:
    """What an error of the database means, and what to do, for a person."""
    if isinstance(error, NotARecord):
        return f"{_MEANINGS[sqlite3.SQLITE_CORRUPT]} ({error})"
    if not isinstance(error, sqlite3.Error):
        return str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return f"{_MEANINGS[code]} ({error})" if code in _MEANINGS else str(error)


def in_doubt(error: sqlite3.Error) -> bool:
    """Whether a commit that failed so may be in the database after all.

    A commit is read back if the whole of its last page is in the write-ahead log. Where it could not be written, it is
    not; where only the flush or what comes after it failed, it may be.
    """
    code = getattr(error, "sqlite_errorcode", 0)
    return code != sqlite3.SQLITE_IOERR_WRITE and code & 0xFF not in _BEFORE_THE_FLUSH


def _cannot_lock(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return f"the directory {path.parent} does not exist; make it"
    return (
        f"{path} can't be made or locked ({error.strerror}); user {os.getuid()} must be able to write in its directory"
    )


def check(connection: sqlite3.Connection) -> None:
    """See that it is a log's database, or none yet.

    Raises:
        LogFileUnusable: It is another one.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (application or version or tables):
        raise LogFileUnusable("it is the database of another program; choose another path")
    if tables and version != SCHEMA:
        raise LogFileUnusable(
            f"it has the form {version}, of another edition of towerbus; this one reads {SCHEMA}: use that edition, or "
            "another path"
        )


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            for table in _TABLES:
                connection.execute(table)
            connection.execute("INSERT INTO log VALUES (?, 0, 0, 0, 0)", (new_epoch(),))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
