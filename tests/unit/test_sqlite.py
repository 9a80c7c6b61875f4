"""The embedded log on disk, in trouble: kill -9, a full disk, locks, files that go away, and two processes at once."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import pytest_twisted
from contract.buses import Follower, made, numbers
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.logger import capturedLogs

from towerbus.errors import BusUnavailable, NotConfirmed, PositionLostError
from towerbus.log import sqlite, sqlite_file
from towerbus.log.sqlite import SqliteLog


@pytest.fixture
def quick(monkeypatch):
    """Looks after itself often, and waits for locks only shortly."""
    monkeypatch.setattr(sqlite, "TICK", 0.02)
    monkeypatch.setattr(sqlite_file, "BUSY", 0.2)


@pytest_twisted.async_yield_fixture
async def started(tmp_path, quick):
    """Starts logs, on the same file where no other is named, and stops them."""
    logs = []

    def start(path=tmp_path / "bus.db", **given):
        log = SqliteLog(path, reactor, **given)
        logs.append(log)
        log.startService()
        return log

    yield start
    for log in logs:
        await log.stopService()


async def everything(log):
    """The numbers of all the events in the log's file."""
    with pytest.raises(PositionLostError) as caught:
        await log.replay(log.tail.end._replace(epoch="ff"))
    replay = await log.replay(caught.value.lost.until)
    found = []
    while records := await replay.more():
        found += numbers(records)
    return found


def tried(log, *events):
    """Emit; collects the outcome."""
    outcome = []
    log.emit(events).addBoth(outcome.append)
    return outcome


async def failure(outcome):
    await until(lambda: outcome)
    return outcome[0].value


@pytest_twisted.ensureDeferred
async def test_what_is_delivered_or_confirmed_is_in_the_file_already(started):
    log = started()
    other = sqlite3.connect(log.path)
    in_file = lambda: other.execute("SELECT max(offset), sum(events) FROM records").fetchone()  # noqa: E731
    missing = []

    class Suspicious(Follower):
        def received(self, record):
            if in_file()[0] < record.offset:
                missing.append(record)
            return super().received(record)

    follower = Suspicious(log)
    for number in range(20):
        await log.emit([made(number)])
        assert in_file()[1] == number + 1
    other.close()
    assert await follower.until(20) == list(range(20))
    assert not missing


@pytest_twisted.ensureDeferred
async def test_all_that_is_queued_goes_into_one_commit(started):
    log = started()
    await gatherResults([log.emit([made(number)]) for number in range(1000)])
    with sqlite3.connect(log.path) as other:
        commits = other.execute("SELECT count(DISTINCT at) FROM records WHERE events > 0").fetchone()[0]
    other.close()
    assert commits == 2
    assert await everything(log) == list(range(1000))


@pytest_twisted.ensureDeferred
async def test_the_queue_is_bounded_in_bytes(started):
    log = started(queue_bytes=20_000)
    outcomes = [tried(log, made(number, size=1000)) for number in range(100)]
    refused = [outcome[0].value for outcome in outcomes if outcome]
    assert 80 < len(refused) < 90
    assert all(isinstance(error, BusUnavailable) and "come back" in str(error) for error in refused)
    await until(lambda: all(outcomes))
    assert await everything(log) == list(range(100 - len(refused)))
    await log.emit([made(0, size=50_000)])  # larger than the queue, and nothing waits


@pytest_twisted.ensureDeferred
async def test_terms_rise_the_epoch_stays_and_each_start_writes_a_fence(started):
    ends = []
    for _ in range(3):
        log = started()
        ends.append(log.tail.end)
        assert ends[-1].place == 0
        await log.stopService()
    assert len({end.epoch for end in ends}) == 1
    assert [end.offset for end in ends] == [1, 2, 3]
    assert ends[0].term < ends[1].term < ends[2].term
    assert ends[0].term >= time.time() - 100


@pytest_twisted.ensureDeferred
async def test_a_file_restored_from_an_old_copy_shows(started, tmp_path):
    later = 0.0
    log = started()
    await log.emit([made(1)])
    common = log.tail.end
    await log.stopService()
    shutil.copy(log.path, tmp_path / "copy")
    log = started()
    await log.emit([made(2, id="two"), made(3)])
    lost_future = log.tail.end
    await log.stopService()
    shutil.copy(tmp_path / "copy", log.path)
    later = 3600
    log = started(wall=lambda: time.time() + later)
    await log.emit([made(2, id="two")])
    await log.emit([made(4), made(5)])
    assert lost_future.epoch == log.tail.end.epoch
    with pytest.raises(PositionLostError, match="restored from a copy") as caught:
        await log.replay(lost_future)
    replay = await log.replay(caught.value.lost.until)
    assert numbers(await replay.more()) == [2, 4, 5]
    replay = await log.replay(common)
    assert numbers(await replay.more()) == [2, 4, 5]


@pytest_twisted.ensureDeferred
async def test_ids_are_known_again_also_those_that_are_not_in_memory(started):
    log = started()
    await log.emit([made(number, id=str(number)) for number in range(3000)])
    await log.stopService()
    log = started(tail_bytes=1000)
    assert len(log.tail) <= 2
    await log.emit([made(number, id=str(number)) for number in range(0, 3001, 500)] + [made(3000, id="3000")])
    assert await everything(log) == list(range(3001))


@pytest_twisted.ensureDeferred
async def test_stopping_writes_what_is_queued_and_refuses_more(started):
    log = started()
    outcomes = [tried(log, made(number)) for number in range(500)]
    stopped = log.stopService()
    late = tried(log, made(999))
    assert "being closed" in str(late[0].value)
    await stopped
    assert all(outcome == [None] for outcome in outcomes)
    assert isinstance(tried(log, made(999))[0].value, BusUnavailable)
    with pytest.raises(BusUnavailable, match="not open"):
        await log.replay(log.tail.end._replace(offset=0))
    assert not (log.path.parent / "bus.db-wal").exists()
    assert await everything(started()) == list(range(500))


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_no_follower_and_no_lock_for_long(started):
    log = started(patience=0.1)
    Follower(log, wait=Deferred())
    on_disk = tried(log, made(1))
    await until(lambda: len(log.tail) == 2)
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    stuck = tried(log, made(2))
    await log.stopService()
    other.close()
    assert on_disk == [None]
    assert isinstance(stuck[0].value, NotConfirmed)


# Trouble, and its end


async def until_refused(log, size=1000):
    """Emit until it is refused; returns the numbers that were confirmed, and the error."""
    confirmed = []
    while True:
        number = len(confirmed)
        try:
            await log.emit([made(number, size=size, id=str(number))])
        except NotConfirmed as error:
            return confirmed, error
        confirmed.append(number)


async def heals(log, confirmed):
    """It takes events again, by itself, and has lost and repeated none."""
    await until(lambda: log.trouble is None)
    number = len(confirmed)
    await log.emit([made(number, id=str(number))])
    return [*confirmed, number]


@pytest.fixture
def small_disk(tmp_path):
    where = tmp_path / "disk"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", where], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)


@pytest_twisted.ensureDeferred
async def test_a_full_disk(started, small_disk):
    (small_disk / "filler").write_bytes(bytes(400_000))
    log = started(small_disk / "bus.db")
    follower = Follower(log)
    with capturedLogs() as logged:
        confirmed, error = await until_refused(log)
        assert 20 < len(confirmed) < 400
        assert isinstance(error, BusUnavailable), "it is known that it is not in the log"
        assert "the disk is full; make room" in str(error)
        assert "full" in log.trouble
        assert isinstance(tried(log, made(0))[0].value, BusUnavailable)
        assert await everything(log) == confirmed
        (small_disk / "filler").unlink()
        confirmed = await heals(log, confirmed)
    assert await follower.until(len(confirmed)) == confirmed
    words = [each["log_format"].partition(":")[0] for each in logged]
    assert words.index("log_unwritable") < words.index("log_writable_again")
    await log.stopService()
    assert await everything(started(small_disk / "bus.db")) == confirmed


@pytest_twisted.ensureDeferred
async def test_a_full_disk_at_start(started, small_disk):
    left = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "filler").write_bytes(bytes(left - 8192))
    with pytest.raises(SystemExit, match="the disk is full"):
        started(small_disk / "bus.db")


@pytest_twisted.ensureDeferred
async def test_a_write_that_fails(started):
    """The limit of file sizes gives a real error of the system to a real write."""
    log = started()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 1024 * 1024, hard))
        confirmed, error = await until_refused(log, size=200_000)
        assert "the disk fails" in str(error)
        assert isinstance(error, BusUnavailable)
        assert await everything(log) == confirmed
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    confirmed = await heals(log, confirmed)
    await log.stopService()
    assert await everything(started()) == confirmed


@pytest_twisted.ensureDeferred
async def test_another_program_has_it_locked(started):
    log = started()
    await log.emit([made(0)])
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    error = await failure(tried(log, made(1)))
    assert isinstance(error, BusUnavailable)
    assert "another program has it locked" in str(error)
    other.execute("ROLLBACK")
    other.close()
    assert await heals(log, [0]) == await everything(log)


@pytest_twisted.ensureDeferred
async def test_a_commit_that_does_not_come_back(started, monkeypatch):
    monkeypatch.setattr(sqlite_file, "BUSY", 60)
    log = started(patience=0.1)
    follower = Follower(log)
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    stuck, queued = tried(log, made(1, id="1")), tried(log, made(2, id="2"))
    error = await failure(stuck)
    assert type(error) is NotConfirmed
    assert error.ids == ("1",)
    assert isinstance(await failure(queued), BusUnavailable)
    assert "has not answered for 0.1 s" in str(tried(log, made(3))[0].value)
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: log.trouble is None)
    log._patience = 60
    await log.emit([made(1, id="1"), made(2, id="2")])
    assert await follower.until(2) == [1, 2]
    assert await everything(log) == [1, 2]


@pytest_twisted.ensureDeferred
async def test_a_file_that_can_not_be_read_in_a_way_nobody_thought_of_is_tried_again(started, logged_failures):
    """What stands in the file makes the opening fail with an error of ours, not of SQLite's or of the system's."""
    log = started()
    await log.emit([made(0)])
    other = sqlite3.connect(log.path, isolation_level=None)
    (term,) = other.execute("SELECT term FROM log").fetchone()
    other.execute("UPDATE log SET term = x'00'")
    other.execute("BEGIN IMMEDIATE")
    assert isinstance(await failure(tried(log, made(1))), BusUnavailable)
    other.execute("ROLLBACK")
    await until(lambda: "TypeError" in str(log.trouble))
    assert "the log can't be written: TypeError" in str(tried(log, made(1))[0].value)
    end = time.monotonic() + 0.2
    await until(lambda: time.monotonic() > end)
    assert [failed.type for failed in logged_failures] == [TypeError], "tried again and again, and said once"
    other.execute("UPDATE log SET term = ?", (term,))
    other.close()
    await until(lambda: log.trouble is None)
    logged_failures.clear()
    await log.emit([made(1)])
    assert await everything(log) == [0, 1]


@pytest_twisted.ensureDeferred
async def test_the_file_is_removed(started):
    log = started()
    follower = Follower(log)
    await log.emit([made(1)])
    before = log.tail.end
    for suffix in ("", "-wal", "-shm"):
        log.path.with_name(log.path.name + suffix).unlink()
    outcome = tried(log, made(2))
    assert isinstance(await failure(outcome), NotConfirmed)
    await until(lambda: log.trouble is None)
    assert log.tail.end.epoch != before.epoch
    assert [lost.after for lost in follower.losses] == [before]
    await log.emit([made(1), made(2)])
    assert await everything(log) == [1, 2]
    with pytest.raises(PositionLostError, match="another log"):
        await log.replay(before)


@pytest_twisted.ensureDeferred
async def test_the_file_is_removed_while_nothing_is_emitted(started):
    log = started()
    log.path.unlink()
    await until(lambda: log.trouble is not None)
    await until(lambda: log.trouble is None)
    assert log.path.exists()


@pytest_twisted.ensureDeferred
async def test_the_directory_is_taken_away_for_a_while(started, tmp_path):
    (tmp_path / "place").mkdir()
    log = started(tmp_path / "place" / "bus.db")
    await log.emit([made(0)])
    (tmp_path / "place").rename(tmp_path / "other")
    await until(lambda: log.trouble is not None and "does not exist" in log.trouble)
    (tmp_path / "other").rename(tmp_path / "place")
    assert await heals(log, [0]) == await everything(log)


@pytest_twisted.ensureDeferred
async def test_what_nobody_could_say_of_is_delivered_when_it_proves_to_be_there(started, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "TICK", 0.5)
    (tmp_path / "place").mkdir()
    log = started(tmp_path / "place" / "bus.db")
    follower = Follower(log)
    await log.emit([made(0)])
    (tmp_path / "place").rename(tmp_path / "other")
    error = await failure(tried(log, made(1, id="1")))
    assert type(error) is NotConfirmed
    assert follower.numbers == [0]
    (tmp_path / "other").rename(tmp_path / "place")
    await until(lambda: log.trouble is None)
    await log.emit([made(1, id="1"), made(2)])
    assert await follower.until(3) == [0, 1, 2]
    assert not follower.losses
    assert await everything(log) == [0, 1, 2]


@pytest_twisted.ensureDeferred
async def test_an_older_copy_takes_its_place(started, tmp_path):
    log = started()
    follower = Follower(log)
    await log.emit([made(1)])
    with sqlite3.connect(log.path) as other:
        other.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    other.close()
    await log.emit([made(2)])
    before = log.tail.end
    (tmp_path / "copy").rename(log.path)
    await until(lambda: follower.losses)
    assert follower.losses[0].after == before
    await log.emit([made(3)])
    assert await everything(log) == [1, 3]
    with pytest.raises(PositionLostError, match="restored from a copy"):
        await log.replay(before)


@pytest_twisted.ensureDeferred
async def test_old_damage_does_not_keep_new_events_out(started):
    log = started(tail_bytes=3000)
    for number in range(10):
        await log.emit([made(number, size=1000)])
    begin = log.tail.begin
    with sqlite3.connect(log.path) as other:
        (offset,) = other.execute("SELECT min(offset) + 2 FROM records WHERE events > 0").fetchone()
        other.execute("UPDATE records SET data = x'c1' WHERE offset = ?", (offset,))
    other.close()
    with pytest.raises(PositionLostError) as caught:
        await log.replay(begin._replace(epoch="ff"))
    replay = await log.replay(caught.value.lost.until)
    assert numbers(await replay.more()) == [0, 1]
    with pytest.raises(PositionLostError, match="damaged") as caught:
        await replay.more()
    replay = await log.replay(caught.value.lost.until)
    assert numbers(await replay.more()) == [3, 4, 5, 6, 7, 8, 9]
    await log.emit([made(10)])


@pytest_twisted.ensureDeferred
async def test_what_can_not_be_let_go_of_keeps_no_event_out_and_is_said_once(started):
    log = started(max_bytes=50_000)
    with sqlite3.connect(log.path) as other:
        other.execute("CREATE TRIGGER stay BEFORE DELETE ON records BEGIN SELECT raise(ABORT, 'they stay'); END")
    other.close()
    with capturedLogs() as logged:
        for number in range(100):
            await log.emit([made(number, size=1000)])
        await until(lambda: any("log_not_cleaned" in each["log_format"] for each in logged))
        await log.emit([made(100)])
    assert log.trouble is None
    assert len([each for each in logged if "log_not_cleaned" in each["log_format"]]) == 1
    assert await everything(log) == list(range(101))
    with sqlite3.connect(log.path) as other:
        other.execute("DROP TRIGGER stay")
    other.close()
    await log.clean()
    assert len(await everything(log)) < 50


@pytest_twisted.ensureDeferred
async def test_a_disk_that_stays_full_is_said_once(started, small_disk):
    log = started(small_disk / "bus.db")
    with capturedLogs() as logged:
        await until_refused(log)
        trouble, end = log.trouble, time.monotonic() + 0.3
        await until(lambda: time.monotonic() > end)
        assert log.trouble == trouble
    assert len([each for each in logged if "log_unwritable" in each["log_format"]]) == 1


# Processes

CHILD = """
import sys
from twisted.internet import reactor, task
from towerbus.event import event
from towerbus.log.sqlite import SqliteLog

log = SqliteLog(sys.argv[1], reactor, max_bytes=400_000, tail_bytes=1000, queue_bytes=10**9)
log.startService()
first, number, size = int(sys.argv[2]), int(sys.argv[2]), 0

def emit():
    global number
    for _ in range(number % 7 + 1):
        made = event("jobs", "x", b'{"n":%d,"x":"%s"}' % (number, b"x" * (number % 13 * 40)), id="n%d" % number)
        log.emit([made]).addCallbacks(confirmed, stop, callbackArgs=(number,))
        number += 1

def confirmed(_, which):
    sys.stdout.write("%d\\n" % which)
    sys.stdout.flush()

def stop(failure):
    failure.printTraceback()
    reactor.stop()

task.LoopingCall(emit).start(0.0005)
reactor.run()
"""


def child(path, first=0):
    return subprocess.Popen([sys.executable, "-c", CHILD, path, str(first)], stdout=subprocess.PIPE, text=True)


@pytest_twisted.ensureDeferred
async def test_kill_9_at_any_moment(started, tmp_path):
    first, path = 0, tmp_path / "bus.db"
    for _ in range(5):
        process = child(path, first)
        confirmed = [int(process.stdout.readline())]
        end = time.monotonic() + random.uniform(0.0, 0.4)
        while time.monotonic() < end:
            confirmed.append(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        confirmed += [int(line) for line in process.stdout.read().splitlines()]
        process.wait()
        process.stdout.close()
        log = started(path, max_bytes=10_000_000)
        found = await everything(log)
        assert found == list(range(found[0], found[-1] + 1)), "each is there once, in order"
        assert found[0] <= max(first, found[-1] - 100), "old ones go, but not all"
        assert confirmed == list(range(first, confirmed[-1] + 1))
        assert found[-1] >= confirmed[-1], "what was confirmed is there"
        first = confirmed[-1] + 1  # the producer emits again what it does not know of
        await log.stopService()


@pytest_twisted.ensureDeferred
async def test_a_second_process_is_told_who_has_it(started, tmp_path):
    path = tmp_path / "bus.db"
    process = child(path)
    process.stdout.readline()
    try:
        with pytest.raises(SystemExit, match=rf"{path}: in use by process {process.pid} \("):
            started(path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait()
    assert await everything(started(path))


@pytest_twisted.ensureDeferred
async def test_a_second_log_in_the_same_process_is_refused(started):
    log = started()
    with pytest.raises(SystemExit, match=f"in use by process {os.getpid()}"):
        started()
    await log.emit([made(1)])
    assert await everything(log) == [1]


# What can't be used is said at start


def text_file(path):
    path.write_text("This is not a database, it is a letter to a friend.\n" * 100)


def other_program(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE cookies (host, value)")
    other.close()


def other_application(path):
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA application_id = 7")
    other.close()


def other_edition(path):
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION}")
        other.execute("PRAGMA user_version = 2")
        other.execute("CREATE TABLE log (something_else)")
    other.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (text_file, "it is no database; choose another path"),
        (other_program, "the database of another program; choose another path"),
        (other_application, "the database of another program; choose another path"),
        (other_edition, "the form 2, of another edition of towerbus; this one reads 1"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_stays_as_it_is(tmp_path, make, words):
    path = tmp_path / "bus.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=f"^towerbus: --bus sqlite:{path}: .*{words}"):
        SqliteLog(path, reactor).startService()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere/bus.db", "the directory .*nowhere does not exist; make it"),
        ("", "it is a directory; name a file in it"),
        ("/proc/bus.db", "must be able to write in its directory|does not exist"),
        ("/sys/kernel/bus.db", "must be able to write in its directory"),
    ],
)
def test_a_path_that_can_not_be(tmp_path, path, words):
    with pytest.raises(SystemExit, match=words):
        SqliteLog(tmp_path / path, reactor).startService()


def test_a_path_may_begin_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert SqliteLog("~/bus.db", reactor).path == tmp_path / "bus.db"


@pytest_twisted.ensureDeferred
async def test_a_damaged_file_is_refused(started):
    log = started()
    await log.emit([made(number, size=2000) for number in range(100)])
    await log.stopService()
    content = bytearray(log.path.read_bytes())
    content[4096 : len(content) // 2] = os.urandom(len(content) // 2 - 4096)
    log.path.write_bytes(content)
    with pytest.raises(
        SystemExit, match="it is damaged; restore it from a copy, or move it away for a new log to begin"
    ):
        started()


@pytest_twisted.ensureDeferred
async def test_a_start_that_was_cut_off_is_begun_again(started, tmp_path):
    (tmp_path / "bus.db").touch()
    await started().emit([made(1)])


@pytest_twisted.ensureDeferred
async def test_events_are_for_few_eyes(started):
    log = started()
    await log.emit([made(1)])
    for path in log.path.parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


@pytest_twisted.ensureDeferred
async def test_emits_that_share_ids_with_others_hear_the_truth(started):
    log = started()
    other = sqlite3.connect(log.path, isolation_level=None)
    await log.emit([made(0, id="in")])
    other.execute("BEGIN IMMEDIATE")
    one = log.emit([made(1, id="a")])
    two = log.emit([made(0, id="in"), made(1, id="a")])
    three = log.emit([made(1, id="a"), made(2, id="b")])
    outcomes = await DeferredList([one, two, three], consumeErrors=True)
    other.close()
    errors = [failure.value for _, failure in outcomes]
    assert [type(error) for error in errors] == [BusUnavailable, NotConfirmed, BusUnavailable]
    assert [error.ids for error in errors] == [("a",), ("a",), ("a", "b")]
