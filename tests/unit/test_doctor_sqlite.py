"""The doctor's look at the file of the embedded log: what is wrong is named with its mend, and nothing is changed."""

import os
import sqlite3
import subprocess
import sys
import time

import pytest

from towerbus.doctor import sqlite as doctor
from towerbus.doctor.findings import Level
from towerbus.event import Event
from towerbus.log.age import AgeClock
from towerbus.log.record import Record
from towerbus.log.sqlite_writer import Writer
from towerbus.topics import Topic

MAX_BYTES = 1_000_000


@pytest.fixture
def path(tmp_path):
    """A log with a few events, whose process has ended."""
    path = tmp_path / "log.db"
    fill(path, 3)
    return path


def fill(path, records, size=1000):
    clock = AgeClock(time.monotonic, time.time, 86400.0)
    writer = Writer(path, clock, max_bytes=MAX_BYTES, tail_bytes=MAX_BYTES)
    opened = writer.open()
    last = opened.newest[-1][0]
    for offset in range(last.offset + 1, last.offset + 1 + records):
        event = Event(Topic("g", "t"), b"x" * size, f"{offset}", 0.0)
        writer.commit([Record(last.epoch, opened.term, offset, (event,))])
        while writer.clean():
            pass
    writer.close()


def look(path, **given):
    told = {"max_bytes": MAX_BYTES, "max_age": 86400.0, "window": 3600.0} | given
    return doctor.look(path, **told)


def wrong(path, **given):
    """What is not as it should be, as (check, level)."""
    found = [finding for finding in look(path, **given) if finding.level is not Level.OK]
    assert all(finding.mend for finding in found)
    return [(finding.check, finding.level) for finding in found]


def files(directory):
    return {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in directory.iterdir()}


def test_all_is_well_and_nothing_is_changed(path):
    before = files(path.parent)
    found = look(path)
    assert {finding.check: finding.level for finding in found} == dict.fromkeys(
        ["disk", "integrity", "retention"], Level.OK
    )
    assert files(path.parent) == before


def test_a_file_that_is_not_there_yet(tmp_path):
    found = look(tmp_path / "log.db")
    assert [finding.level for finding in found] == [Level.OK] * 3
    assert "is not there yet" in found[1].text
    assert not list(tmp_path.iterdir())


def test_a_log_whose_process_was_killed(path):
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('UPDATE records SET wall = wall - 100'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)
    assert path.with_name("log.db-wal").exists()
    found = look(path)
    assert {finding.level for finding in found} == {Level.OK}
    (reach,) = [finding.text for finding in found if finding.check == "retention"]
    assert "it reaches back 10" in reach  # also what stands in the write-ahead log is seen


def test_a_promise_that_is_not_kept(path):
    assert wrong(path, max_age=60.0) == [("retention", Level.ERROR)]
    # What was let go of for its age, or not at all, is no sign of a log that is too small.
    assert wrong(path, max_bytes=1_000_000) == []
    fill(path, 400, 5000)
    found = [finding for finding in look(path) if finding.level is Level.ERROR]
    assert [finding.text.partition(" s only")[2] for finding in found] == [", promised are 3600 s: it is full"]
    assert "raise --log-max-bytes, and restart twistd towerbus" in found[0].mend


def test_a_damaged_file(path):
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096)
    found = [finding for finding in look(path) if finding.level is Level.ERROR]
    assert found
    assert all("damaged" in finding.text or "restore" in finding.mend for finding in found)


def test_no_database_and_the_database_of_others(tmp_path):
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"no database at all" * 100)
    junk.chmod(0o600)
    assert wrong(junk) == [("file", Level.ERROR)]
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    (tmp_path / "other.db").chmod(0o600)
    assert wrong(tmp_path / "other.db") == [("file", Level.ERROR)]
    assert wrong(tmp_path) == [("file", Level.ERROR)]
    assert wrong(tmp_path / "nowhere" / "log.db") == [("file", Level.ERROR)]


def test_who_may_read_and_write_it(path):
    path.chmod(0o644)
    assert wrong(path) == [("permissions", Level.WARNING)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_beside_it_that_belong_to_somebody_else(path):
    os.chown(path.with_name("log.db.lock"), 65534, 65534)
    assert wrong(path) == [("permissions", Level.ERROR)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_who_may_not(path):
    directory = path.parent
    for level in [directory, *directory.parents][:3]:
        level.chmod(0o755)
    assert _as_nobody(path) == "user 65534 can't write in"
    directory.chmod(0o777)
    assert _as_nobody(path) == "user 65534 can't read and write"
    directory.parent.chmod(0o700)
    assert _as_nobody(path) == "user 65534 can't look at"


def _as_nobody(path):
    """The one thing that is found, in the words before the path."""
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.setuid(65534)
            (found, *_) = [finding for finding in look(path) if finding.level is Level.ERROR]
            os.write(writer, f"{found.text} ".partition(" /")[0].encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.wait()
    told = os.read(reader, 1000).decode()
    os.close(reader)
    return told


def test_a_disk_without_room(path):
    free = 2**60
    assert wrong(path, max_bytes=free) == [("disk", Level.WARNING)]


def test_a_check_that_takes_too_long_is_given_up(path, monkeypatch):
    monkeypatch.setattr(doctor, "SECONDS", -1.0)
    monkeypatch.setattr(doctor, "STEPS", 1)
    assert wrong(path) == [("integrity", Level.NOTE)]
