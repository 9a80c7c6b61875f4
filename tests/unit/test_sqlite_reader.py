"""The reading side of the embedded log, beside a model that is a plain list."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towerbus.errors import BusUnavailable, PositionLostError
from towerbus.event import Event
from towerbus.log.packing import pack
from towerbus.log.record import Record
from towerbus.log.sqlite_file import connect, identity
from towerbus.log.sqlite_reader import Reader
from towerbus.positions import Position
from towerbus.topics import Topic


class Log:
    """A file with records in it, and a reader."""

    def __init__(self, directory):
        self.path = directory / "bus.db"
        self.connection = connect(self.path)
        self.epoch = identity(self.connection).epoch
        self.reader = Reader(self.path, "a while")
        self.records, self.begin = [], Position(self.epoch, 0, 0, 0)

    def add(self, term, events, size=10):
        offset = self.end.offset + 1
        record = Record(
            self.epoch, term, offset, tuple(Event(Topic("g", "t"), b"x" * size, "id", 0.0) for _ in range(events))
        )
        self.connection.execute("INSERT INTO records VALUES (?, ?, ?, 0, 0, ?)", (offset, term, events, pack(record)))
        self.records.append(record)

    def let_go(self, count):
        for record in self.records[:count]:
            self.begin = record.end
        self.connection.execute("UPDATE log SET begin_term = ?, begin_offset = ?, begin_place = ?", self.begin[1:])
        self.connection.execute("DELETE FROM records WHERE offset <= ?", (self.begin.offset,))
        del self.records[:count]

    @property
    def end(self):
        return self.records[-1].end if self.records else self.begin

    def read(self, after, piece=1):
        found = []
        while records := self.reader.read(after, self.end, piece):
            found += records
            after = records[-1].end
        return found

    def close(self):
        self.reader.close()
        self.connection.close()


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path)
    yield made
    made.close()


shapes = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=12)


@settings(max_examples=60)
@given(shapes, st.integers(0, 12), st.integers(1, 100), st.data())
def test_it_answers_as_a_list_of_records_does(tmp_path_factory, shapes, gone, piece, data):
    log = Log(tmp_path_factory.mktemp("log"))
    term = 5
    for rises, events in shapes:
        term += 2 * rises
        log.add(term, events)
    everything = list(log.records)
    log.let_go(gone)
    terms = st.integers(4, term + 2)
    position = data.draw(st.builds(Position, st.just(log.epoch), terms, st.integers(0, 14), st.integers(0, 4)))
    there = [
        position
        for record in log.records
        for position in (record.begin, *map(record.position, range(len(record.events))))
    ]
    if position in [*there, log.begin]:
        log.reader.check(position, log.end)
        assert log.read(position, piece) == [record for record in log.records if record.end > position]
    else:
        with pytest.raises(PositionLostError) as caught:
            log.reader.check(position, log.end)
        lost = caught.value.lost
        assert lost.after == position
        left = [record for record in log.read(lost.until, piece) if record.events]
        # What can be read on is all that stands behind the position and is still there.
        behind = [record for record in log.records if (record.term, record.offset) > (position.term, position.offset)]
        assert left == [record for record in behind if record.events]
        gone_for_age = position < log.begin and position.offset <= log.begin.offset
        assert ("kept for a while only" in lost.reason) == gone_for_age
        assert ("past the end" in lost.reason) == (position > log.end)
    assert all(record in everything for record in log.records)
    log.close()


def test_pieces_are_bounded(log):
    for _ in range(20):
        log.add(1, 2, size=500)
    begin = log.begin
    sizes = [len(log.reader.read(begin, log.end, piece)) for piece in (1, 1500, 10_000_000)]
    assert sizes == [1, 2, 20]


def test_nothing_behind_the_end_that_is_known_is_read(log):
    for _ in range(5):
        log.add(1, 1)
    assert [record.offset for record in log.reader.read(log.begin, log.records[2].end)] == [1, 2, 3]
    assert not log.reader.read(log.records[2].end, log.records[2].end)


def test_a_reader_that_was_overtaken_is_told(log):
    for _ in range(6):
        log.add(1, 1)
    records = log.reader.read(log.begin, log.end, 1)
    log.let_go(3)
    with pytest.raises(PositionLostError, match="kept for a while only") as caught:
        log.reader.read(records[-1].end, log.end, 1)
    assert caught.value.lost.until == log.begin
    assert [record.offset for record in log.read(log.begin)] == [4, 5, 6]


def test_a_damaged_record_is_a_loss_of_that_record(log):
    for _ in range(4):
        log.add(1, 2)
    log.connection.execute("UPDATE records SET data = x'c1' WHERE offset = 2")
    assert [record.offset for record in log.reader.read(log.begin, log.end)] == [1]
    with pytest.raises(PositionLostError, match="damaged.*offset 2") as caught:
        log.reader.read(log.records[0].end, log.end)
    assert caught.value.lost == (log.records[0].end, log.records[1].end, caught.value.lost.reason)
    assert [record.offset for record in log.reader.read(caught.value.lost.until, log.end)] == [3, 4]


def test_a_file_that_can_not_be_read_is_said_and_tried_again(log):
    log.add(1, 1)
    log.connection.execute("ALTER TABLE records RENAME TO away")
    with pytest.raises(BusUnavailable, match="can't be read: no such table"):
        log.reader.read(log.begin, log.end)
    log.connection.execute("ALTER TABLE away RENAME TO records")
    assert len(log.reader.read(log.begin, log.end)) == 1


def test_it_makes_no_file_and_changes_none(tmp_path):
    reader = Reader(tmp_path / "bus.db", "a while")
    with pytest.raises(BusUnavailable, match="can't be opened"):
        reader.check(Position("0a", 1, 1, 1), Position("0a", 1, 1, 1))
    assert not (tmp_path / "bus.db").exists()


def test_it_can_not_write(log):
    log.reader.check(log.begin, log.end)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        log.reader._connection.execute("DELETE FROM records")
