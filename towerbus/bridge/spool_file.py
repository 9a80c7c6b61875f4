"""The spool's database: events that wait for the bus, in the order in which they came. For one thread."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from towerbus.errors import ConfigError
from towerbus.event import Event
from towerbus.topics import Topic

APPLICATION = 0x746F7773
"""What marks the file as ours: "tows", in SQLite's `application_id`."""
SCHEMA = 1
"""The form of the table, in SQLite's `user_version`."""
BUSY = 2.0
"""Seconds to wait for another program that has the database locked."""
OVERHEAD = 200
"""Bytes that an event is counted as, beside its payload."""

_TABLE = """CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, -- a producer that was not answered posts its event again
    topic_group TEXT NOT NULL,
    topic_type TEXT NOT NULL,
    time REAL NOT NULL,
    payload BLOB NOT NULL
)"""


class SpoolUnusable(ConfigError):
    """The spool's file can't be used; the text says why."""


class SpoolGone(SpoolUnusable):
    """The file was moved or removed while it was in use: what it holds can be read, until it is closed."""


class Spooled(NamedTuple):
    """An event in the spool.

    Attributes:
        number: Its place.
        event: The event.
    """

    number: int
    event: Event


class Held(NamedTuple):
    """How much the spool holds.

    Attributes:
        events: Events.
        bytes: Their payloads and `OVERHEAD` for each.
    """

    events: int
    bytes: int


class SpoolFile:
    """The database, open for writing; made where there is none.

    Args:
        path: Where. It must be a local disk.

    Raises:
        SpoolUnusable: It is the database of another program, or its file system can't hold one.
        sqlite3.Error: It can't be read or written.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            # Events may be for few eyes; SQLite gives its other files the same permissions.
            os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._path = path
        self._connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(path)
            self._identity = _identity(path)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, path: Path) -> None:
        run = self._connection.execute
        (application,) = run("PRAGMA application_id").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and (application or version or tables):
            raise SpoolUnusable(f"{path} is the database of another program; move it away")
        if tables and version != SCHEMA:
            raise SpoolUnusable(f"{path} has the form {version}, of another edition of towerbus; use that edition")
        (journal,) = run("PRAGMA journal_mode = WAL").fetchone()
        if journal != "wal":
            raise SpoolUnusable(f"{path}: its file system allows no write-ahead log; choose a local disk")
        # Acknowledged is what survives a power cut.
        run("PRAGMA synchronous = FULL")
        if not tables:
            run("BEGIN IMMEDIATE")
            run(f"PRAGMA application_id = {APPLICATION}")
            run(f"PRAGMA user_version = {SCHEMA}")
            run(_TABLE)
            run("COMMIT")

    def held(self) -> Held:
        """How much it holds; reads all of it."""
        found = self._connection.execute("SELECT count(*), total(length(payload)) FROM events").fetchone()
        return Held(found[0], int(found[1]) + OVERHEAD * found[0])

    def add(self, calls: Sequence[Sequence[Event]]) -> Held:
        """Write the events of several calls in one transaction; those whose ids are there already are passed over.

        Returns:
            How much was added, when all of it is on the disk.

        Raises:
            SpoolGone: A file that nobody finds again would lose it.
        """
        if _identity(self._path) != self._identity:
            raise SpoolGone(f"{self._path} was moved or removed while it was in use")
        events = size = 0
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for event in (event for call in calls for event in call):
                row = (event.id, *event.topic, event.time, event.payload)
                done = self._connection.execute(
                    "INSERT OR IGNORE INTO events (id, topic_group, topic_type, time, payload) VALUES (?, ?, ?, ?, ?)",
                    row,
                )
                events += done.rowcount
                size += (len(event.payload) + OVERHEAD) * done.rowcount
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return Held(events, size)

    def first(self, limit: int, size: int) -> list[Spooled]:
        """The oldest events.

        Args:
            limit: Events, at the most.
            size: Bytes of their payloads, at the most; one alone may have more.
        """
        found: list[Spooled] = []
        rows = self._connection.execute(
            "SELECT number, id, topic_group, topic_type, time, payload FROM events ORDER BY number LIMIT ?", (limit,)
        )
        for number, id_, group, type_, time, payload in rows:
            size -= len(payload)
            if found and size < 0:
                break
            found.append(Spooled(number, Event(Topic(group, type_), payload, id_, time)))
        rows.close()
        return found

    def remove(self, until: int) -> None:
        """Let go of all events up to a number, and with it."""
        self._connection.execute("DELETE FROM events WHERE number <= ?", (until,))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at a path now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
