"""The database file: its lock, its permissions, and what its errors mean. What it refuses is in test_sqlite.py."""

import os
import sqlite3

import pytest

from towerbus.log.packing import NotARecord
from towerbus.log.sqlite_file import Lock, LogFileUnusable, connect, connect_to_read, identity, in_doubt, meaning


def test_a_lock_is_held_once_and_says_by_whom(tmp_path):
    one, other = Lock(tmp_path / "bus.db"), Lock(tmp_path / "bus.db")
    one.take()
    with pytest.raises(
        LogFileUnusable, match=f"in use by process {os.getpid()} \\(.* on .*, since .*\\); stop that one"
    ):
        other.take()
    one.release()
    other.take()
    other.release()
    other.release()


def test_a_lock_file_without_a_name_in_it_is_no_trouble(tmp_path):
    one, other = Lock(tmp_path / "bus.db"), Lock(tmp_path / "bus.db")
    one.take()
    one.path.write_bytes(b"\xff")
    with pytest.raises(LogFileUnusable, match="in use by"):
        other.take()
    one.path.write_bytes(b"")
    with pytest.raises(LogFileUnusable, match="in use by another process"):
        other.take()
    one.release()


def test_a_new_file_is_ours_durable_and_can_shrink(tmp_path):
    made = connect(tmp_path / "bus.db")
    asked = lambda name: made.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
    assert (asked("journal_mode"), asked("synchronous"), asked("auto_vacuum")) == ("wal", 2, 2)
    epoch = identity(made).epoch
    made.close()
    again = connect(tmp_path / "bus.db")
    assert identity(again).epoch == epoch
    again.close()


@pytest.mark.parametrize("name", ["with space.db", "per%cent?.db", "ünïcode#.db"])
def test_any_name_will_do(tmp_path, name):
    connect(tmp_path / name).close()
    reading = connect_to_read(tmp_path / name)
    identity(reading)
    reading.close()
    assert (tmp_path / name).exists()


def test_a_log_that_says_nothing_of_itself_is_damaged(tmp_path):
    made = connect(tmp_path / "bus.db")
    made.execute("DELETE FROM log")
    with pytest.raises(LogFileUnusable, match="damaged"):
        identity(made)
    made.close()


def error(code):
    made = sqlite3.OperationalError("as SQLite says it")
    made.sqlite_errorcode = code
    return made


@pytest.mark.parametrize(
    ("code", "doubt", "words"),
    [
        (sqlite3.SQLITE_FULL, False, "the disk is full; make room"),
        (sqlite3.SQLITE_BUSY, False, "another program has it locked"),
        (sqlite3.SQLITE_READONLY_DBMOVED, False, "can't be written"),
        (sqlite3.SQLITE_IOERR_WRITE, False, "the disk fails"),
        (sqlite3.SQLITE_IOERR_FSYNC, True, "the disk fails"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, True, "the disk fails"),
        (sqlite3.SQLITE_NOMEM, True, "as SQLite says it"),
        (sqlite3.SQLITE_CORRUPT, False, "it is damaged"),
    ],
)
def test_what_errors_mean(code, doubt, words):
    assert in_doubt(error(code)) is doubt
    assert words in meaning(error(code))
    assert "as SQLite says it" in meaning(error(code))


def test_what_is_no_error_of_sqlite():
    assert in_doubt(sqlite3.InterfaceError("odd"))
    assert "damaged" in meaning(NotARecord("7 bytes"))
    assert meaning(OSError("odd")) == "odd"
