"""The writing side of the embedded log: terms, what it lets go of, and the size of its file."""

import sqlite3

import pytest

from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.log import sqlite_writer
from towerbus.log.age import AgeClock
from towerbus.log.record import Record
from towerbus.log.sqlite_file import WAL_LIMIT, LogFileUnusable
from towerbus.log.sqlite_writer import Writer
from towerbus.positions import Position
from towerbus.topics import Topic

NOW = 1_700_000_000.0


class Log:
    """A writer, with time that is moved by hand."""

    def __init__(self, path, *, max_bytes=200_000, max_age=100.0, tail_bytes=1_000_000):
        self.path, self.bounds = path, (max_bytes, max_age, tail_bytes)
        self.seconds, self.wall = 0.0, NOW
        self.writer = None

    def open(self, known=None):
        max_bytes, max_age, tail_bytes = self.bounds
        if self.writer is None:
            clock = AgeClock(lambda: self.seconds, lambda: self.wall, max_age)
            self.writer = Writer(self.path, clock, max_bytes=max_bytes, tail_bytes=tail_bytes)
        self.opened = self.writer.open(known)
        self.last = self.opened.newest[-1][0]
        return self.opened

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.writer = None

    def write(self, *sizes, ids=None):
        """Write one record with events of these sizes."""
        offset = self.last.offset + 1
        events = (Event(Topic("g", "t"), b"x" * size, f"{offset}.{place}", 0.0) for place, size in enumerate(sizes))
        self.last = Record(self.last.epoch, self.opened.term, offset, tuple(events))
        return self.writer.commit([self.last])

    def clean(self):
        steps = 1
        while self.writer.clean():
            steps += 1
        return steps

    def pass_by(self, seconds):
        self.seconds += seconds
        self.wall += seconds

    def asked(self, question):
        other = sqlite3.connect(self.path)
        answer = other.execute(question).fetchall()
        other.close()
        return answer

    @property
    def offsets(self):
        return [offset for (offset,) in self.asked("SELECT offset FROM records ORDER BY offset")]

    @property
    def begin(self):
        return Position(*self.asked("SELECT epoch, begin_term, begin_offset, begin_place FROM log")[0])


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path / "bus.db")
    made.open()
    yield made
    made.close()


def test_a_new_log_begins_with_a_fence(log):
    opened = log.opened
    ((fence, at),) = opened.newest
    assert (fence.offset, fence.events, fence.term, at) == (1, (), int(NOW), NOW)
    assert opened.begin == Position(fence.epoch, 0, 0, 0)
    assert opened.continues


def test_a_term_is_the_present_time_or_one_more_than_the_last(log):
    terms = [log.opened.term]
    for passes in (0, 0, 3600, -7200):
        log.wall += passes
        terms.append(log.open().term)
    assert terms == [int(NOW), int(NOW) + 1, int(NOW) + 2, int(NOW) + 3600, int(NOW) + 3601]


def test_what_is_written_is_found_again(log):
    log.write(10, 20)
    written = log.last
    log.write(30)
    log.close()
    opened = log.open()
    assert [record.offset for record, _ in opened.newest] == [1, 2, 3, 4]
    assert opened.newest[1][0] == written
    assert not opened.window.unseen(written.events)


def test_only_as_much_as_the_tail_wants_is_held_and_all_ids_are_known(tmp_path):
    log = Log(tmp_path / "bus.db", max_bytes=10_000_000, tail_bytes=5000)
    log.open()
    ids = []
    for _ in range(50):
        log.write(1000)
        ids += log.last.events
    log.close()
    opened = log.open()
    assert 5 <= len(opened.newest) <= 7
    assert not opened.window.unseen(ids)
    log.close()


def test_ids_are_counted_back_from_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "SIZE", 10)
    log = Log(tmp_path / "bus.db", tail_bytes=0)
    log.open()
    written = []
    for _ in range(10):
        log.write(1, 1, 1)
        written += log.last.events
    log.close()
    opened = log.open()
    assert [event.id for event in opened.window.unseen(written)] == [event.id for event in written[:-12]]
    log.close()


def test_more_records_than_one_statement_takes_are_written_together(log):
    records = [Record(log.last.epoch, log.opened.term, 2 + number, ()) for number in range(250)]
    log.writer.commit(records)
    assert log.offsets == list(range(1, 252))
    clashing = [Record(log.last.epoch, log.opened.term, offset, ()) for offset in [*range(252, 500), 1]]
    with pytest.raises(NotConfirmed):
        log.writer.commit(clashing)
    assert log.offsets == list(range(1, 252)), "all of them, or none"


def test_size_is_bounded_and_the_begin_is_exact(log):
    places = {}
    for number in range(400):
        dirty = log.write(*[1000] * (number % 3 + 1))
        places[log.last.offset] = len(log.last.events)
        if dirty:
            log.clean()
        assert log.writer._used() <= 230_000
    offsets = log.offsets
    assert offsets == list(range(offsets[0], log.last.offset + 1))
    assert len(offsets) > 50
    assert log.begin == Position(log.last.epoch, log.opened.term, offsets[0] - 1, places[offsets[0] - 1])
    assert log.path.stat().st_size < 1_500_000


def test_one_step_for_each_commit_is_enough_at_any_load(tmp_path):
    log = Log(tmp_path / "bus.db", max_bytes=1_000_000)
    log.open()
    for _ in range(40):
        sizes = [16_000] * 100
        offset = log.last.offset + 1
        events = [Event(Topic("g", "t"), b"x" * size, str(offset), 0.0) for size in sizes]
        records = [
            Record(log.last.epoch, log.opened.term, offset + number, (event,)) for number, event in enumerate(events)
        ]
        log.last = records[-1]
        if log.writer.commit(records):
            log.writer.clean()
        assert log.writer._used() < 8_000_000
    assert log.path.stat().st_size < 16_000_000
    assert log.path.with_name("bus.db-wal").stat().st_size <= WAL_LIMIT + 8_000_000
    log.close()


def test_the_newest_record_is_kept_whatever_its_size(log):
    log.write(10)
    log.write(900_000)
    log.clean()
    assert log.offsets == [log.last.offset]
    log.write(10)
    log.clean()
    assert log.offsets == [log.last.offset]


def test_what_is_too_old_goes_all_of_it(log):
    for _ in range(3):
        log.write(10)
        log.pass_by(40)
    log.clean()
    assert log.offsets == [3, 4]
    log.pass_by(1000)
    log.clean()
    assert log.offsets == []
    assert log.begin == log.last.end
    log.write(10)
    assert log.offsets == [5]
    log.close()
    opened = log.open()
    assert opened.begin == Position(log.last.epoch, opened.term - 1080, 4, 1) or opened.begin.offset == 4


def test_a_log_that_let_go_of_all_goes_on_behind_it(log):
    log.write(10)
    end = log.last.end
    log.pass_by(1000)
    log.clean()
    log.close()
    opened = log.open(known=end)
    assert opened.continues
    assert opened.begin == end
    assert [record.offset for record, _ in opened.newest] == [3]


@pytest.mark.parametrize("jump", [1e9, -1e9, 3600])
@pytest.mark.parametrize("running", [True, False])
def test_a_clock_that_jumps_deletes_nothing_that_is_young(log, jump, running):
    for _ in range(5):
        log.write(10)
        log.pass_by(5)
    if running:
        log.wall += jump
        log.clean()
        assert len(log.offsets) == 6
        log.write(10)
    log.close()
    if not running:
        log.wall += jump
    log.seconds = 3.0
    log.open()
    log.clean()
    assert log.offsets[0] == 1
    log.pass_by(101)
    log.clean()
    assert log.offsets == []


def test_the_file_becomes_small_again(log):
    log.bounds = (50_000_000, 100.0, 0)
    log.close()
    log.open()
    for _ in range(100):
        log.write(100_000)
    log.clean()
    log.writer._checkpoint("TRUNCATE")
    large = log.path.stat().st_size
    log.pass_by(101)
    steps = log.clean()
    log.writer._checkpoint("TRUNCATE")
    assert large > 10_000_000
    assert log.path.stat().st_size < 2_000_000
    assert 10 < steps < 100, "step by step"


def test_a_known_end_is_found_again_and_what_is_behind_it(log):
    log.bounds = (10_000_000, 100.0, 0)
    log.close()
    assert len(log.open().newest) == 1
    log.write(10)
    known = log.last.end
    log.write(100_000)
    log.write(10)
    opened = log.open(known)
    assert opened.continues
    behind = [record.offset for record, _ in opened.newest if record.end > known]
    assert behind == [known.offset + 1, known.offset + 2, known.offset + 3]


def test_an_end_that_the_log_does_not_have(log):
    log.write(10)
    end = log.last.end
    for other in (
        end._replace(epoch="ffff"),
        end._replace(term=end.term + 1),
        end._replace(offset=9),
        end._replace(place=2),
    ):
        assert not log.open(other).continues
    assert log.open(end).continues


def test_a_file_that_was_moved_is_noticed_and_takes_its_events_with_it(log, tmp_path):
    log.write(10)
    log.path.rename(tmp_path / "moved.db")
    with pytest.raises(BusUnavailable, match="removed or replaced"):
        log.writer.clean()
    with pytest.raises(NotConfirmed, match="removed or replaced"):
        log.write(10)
    log.close()
    log.open()
    assert log.offsets == [1]
    log.path = tmp_path / "moved.db"
    assert log.offsets[:2] == [1, 2]


def test_a_commit_or_a_step_while_the_file_is_closed(log):
    log.writer.close()
    assert not log.writer.clean()
    with pytest.raises(BusUnavailable, match="not open"):
        log.write(10)


def test_a_damaged_record_among_the_newest_is_said_at_start(log):
    log.write(10)
    log.close()
    other = sqlite3.connect(log.path)
    with other:
        other.execute("UPDATE records SET data = x'c1' WHERE offset = 2")
    other.close()
    with pytest.raises(LogFileUnusable, match="^it is damaged; .* offset 2"):
        log.open()
    log.writer._lock.take()  # it has let go of it
