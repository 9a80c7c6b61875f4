"""The doctor's look at the embedded log's file: permissions, room on the disk, integrity, how far it reaches back.

It changes nothing, and may look while `twistd towerbus` runs on the same file.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from towerbus.doctor import findings
from towerbus.doctor.findings import Finding, Level
from towerbus.log.sqlite_file import WAL_LIMIT, LogFileUnusable, beside, check, connect_to_look, identity, meaning

SECONDS = 10.0
"""Seconds that the look at the whole file may take."""
STEPS = 10_000
"""Steps of SQLite's machine between two looks at the clock."""
FULL = 0.8
"""Part of its limit from which on the file is full: what is let go of then is let go of for its size."""
_EIGHTH = 8
"""The file may be larger than what it holds by one such part (docs/operations.md)."""


def look(path: Path, *, max_bytes: int, max_age: float, window: float) -> list[Finding]:
    """Look at everything.

    Args:
        path: Of the database, absolute.
        max_bytes: Bytes that the log is told to keep.
        max_age: Seconds that it is told to keep them.
        window: Seconds for which coming back without loss was promised.
    """
    try:
        found = list(_access(path))
    except PermissionError as error:
        text = f"user {os.geteuid()} can't look at {error.filename}: {error.strerror}"
        return [findings.error("permissions", text, f"look as the user of the service, or open {path.parent} to it")]
    if any(finding.level is Level.ERROR for finding in found):
        return found
    found += _room(path, max_bytes)
    if not path.exists():
        text = f"{path} is not there yet: twistd towerbus makes it"
        return [*found, findings.ok("file", text), *_reach(None, False, max_bytes, max_age, window)]
    try:
        with closing(connect_to_look(path)) as connection:
            check(connection)
            found += _integrity(connection, path)
            found += _reach(*_kept(connection, max_bytes), max_bytes, max_age, window)
    except LogFileUnusable as error:
        mend = "give --bus sqlite:PATH another path, or move that file away"
        found.append(findings.error("file", f"{path}: {error}", mend))
    except sqlite3.Error as error:
        found.append(findings.error("file", f"{path}: {meaning(error)}", _restore(path)))
    return found


def _access(path: Path) -> Iterable[Finding]:
    """Whether this user may use the files, and who else."""
    user = f"user {os.geteuid()}"
    if not path.parent.is_dir():
        mend = f"make the directory, for the user of the service: install -d -m 700 -o USER {path.parent}"
        yield findings.error("file", f"the directory {path.parent} does not exist", mend)
        return
    if not os.access(path.parent, os.W_OK | os.X_OK):
        text = f"{user} can't write in {path.parent}, where files are kept beside the log"
        yield findings.error("permissions", text, f"look as the user of the service, or: chown USER {path.parent}")
        return
    if not path.exists():
        return
    if not path.is_file():
        yield findings.error("file", f"{path} is not a file", "name a file: --bus sqlite:PATH")
        return
    owner = path.stat()
    others = [each for each in (*beside(path), path.with_name(path.name + ".lock")) if each.exists()]
    for each in (path, *others):
        if not os.access(each, os.R_OK | os.W_OK):
            text = f"{user} can't read and write {each}, which belongs to user {each.stat().st_uid}"
            yield findings.error("permissions", text, f"look as the user of the service, or: chown USER {each}")
        elif each.stat().st_uid != owner.st_uid:
            text = f"{each} belongs to user {each.stat().st_uid}, and {path.name} to user {owner.st_uid}"
            yield findings.error("permissions", text, f"chown --reference={path} {each}")
    if stat.S_IMODE(owner.st_mode) & stat.S_IROTH:
        yield findings.warning("permissions", f"everybody on this machine may read {path}", f"chmod o= {path}*")


def _room(path: Path, max_bytes: int) -> Iterable[Finding]:
    """Whether the disk has room for the log, and for the write-ahead log beside it."""
    free = shutil.disk_usage(path.parent).free
    has = sum(each.stat().st_size for each in (path, *beside(path)) if each.exists())
    grows = max(0, max_bytes + max_bytes // _EIGHTH + WAL_LIMIT - has)
    seen = f"{free} bytes are free in {path.parent}, and the log may grow by {grows}"
    if free < min(grows, WAL_LIMIT):
        yield findings.error("disk", seen, "make room: when the disk is full, producers are refused")
    elif free < grows:
        yield findings.warning("disk", seen, "make room, or lower --log-max-bytes")
    else:
        yield findings.ok("disk", seen)


def _integrity(connection: sqlite3.Connection, path: Path) -> Iterable[Finding]:
    """Whether the file is whole, as SQLite checks it (its page "PRAGMA quick_check"), in bounded time."""
    until = time.monotonic() + SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
    try:
        (first, *_) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
            raise
        mend = f"let it take its time: sqlite3 {path} 'PRAGMA quick_check'"
        yield findings.note("integrity", f"{path} is too large to be checked in {SECONDS:g} s", mend)
        return
    finally:
        connection.set_progress_handler(None, 0)
    if first == "ok":
        yield findings.ok("integrity", f"{path} is whole")
    else:
        yield findings.error("integrity", f"{path} is damaged: {first}", _restore(path))


def _kept(connection: sqlite3.Connection, max_bytes: int) -> tuple[float | None, bool]:
    """How many seconds the log reaches back, None where it is empty, and whether it is full."""
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return None, False
    size, pages, unused = (
        connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_size", "page_count", "freelist_count")
    )
    oldest = connection.execute("SELECT wall FROM records ORDER BY offset LIMIT 1").fetchone()
    full = size * (pages - unused) >= max_bytes * FULL and identity(connection).begin.offset > 0
    return (None if oldest is None else max(0.0, time.time() - oldest[0])), full


def _reach(span: float | None, full: bool, max_bytes: int, max_age: float, window: float) -> list[Finding]:
    return findings.retention(
        window=window, max_age=max_age, span=span, cut=full, max_bytes=max_bytes, then=", and restart twistd towerbus"
    )


def _restore(path: Path) -> str:
    return f"stop twistd towerbus, and restore {path} from a copy, or move it away for a new log to begin"
