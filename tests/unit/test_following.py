"""Following a log that is cut off, let go of, made anew and restored: everything comes once, or is said to be lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.event import Event
from towerbus.log.following import ANEW, CONTEXT, RESTORED, RETENTION, Following
from towerbus.log.packing import pack, unpack
from towerbus.log.record import Record
from towerbus.log.sequence import Stored
from towerbus.log.tail import Tail
from towerbus.positions import Position
from towerbus.topics import Topic

JUNK = b"junk"


class Stream:
    """What RabbitMQ's stream does, in memory."""

    def __init__(self):
        self.made, self.events = 0, 0
        self.anew()

    def anew(self):
        self.made += 1
        self.epoch, self.term, self.next, self.stored, self.valid = f"{self.made:x}", 1, 0, [], []
        self.write()

    def write(self, count=0):
        """A record of so many events; without any it is a fence."""
        events = tuple(self._event() for _ in range(count))
        self.valid += [event.id for event in events]
        self.raw(pack(Record(self.epoch, self.term, 0, events)))

    def zombie(self):
        """A record of a worker that is no longer the active one."""
        if self.term > 1:
            self.raw(pack(Record(self.epoch, self.term - 1, 0, (self._event(),))))

    def fence(self):
        self.term += 1
        self.write()

    def raw(self, body):
        self.stored.append(Stored(self.next, body))
        self.next += 1

    def skip(self, count=1):
        """RabbitMQ uses up an offset itself, or several in a row."""
        self.next += count

    def drop(self, count):
        """Retention."""
        del self.stored[: min(count, len(self.stored) - 1)]

    def restore(self, count):
        """The newest records are gone; the next worker will have another term."""
        count = min(count, len(self.stored) - 1)
        if count:
            del self.stored[-count:]
            self.next = self.stored[-1].offset + 1
            self.term += 1

    def recover(self, count):
        """The newest records are gone, and a worker has become active."""
        self.restore(count)
        self.write()

    def _event(self):
        self.events += 1
        return Event(Topic("jobs", "x"), b'{"n":1}', f"e{self.events}", 0.0)

    def ids(self, behind):
        """The events that count and stand behind a position."""
        count, found = set(self.valid), []
        for stored in self.stored:
            if stored.body != JUNK:
                record = unpack(stored.body, stored.offset)
                found += [
                    event.id
                    for number, event in enumerate(record.events)
                    if event.id in count and record.position(number) > behind
                ]
        return found


class Reader:
    """A server's reading of the stream, with the connection's life made of calls."""

    def __init__(self, stream, count=1000):
        self.stream, self.count = stream, count
        self.following = Following()
        self.tail = Tail(Position("0", 0, 0, 0), max_bytes=10**9)
        self.handed, self.losses, self.opened = [], [], []
        self.cursor = None

    def connect(self):
        end = self.stream.stored[-1]
        if not self.following.known:
            start = self.following.begin(end, self.count)
        else:
            start = self.following.resume(end)
            if start is None:
                start = self.rewind()
        self.open(start)

    def open(self, start):
        self.opened.append(start)
        self.cursor = 0 if start == "first" else start

    def rewind(self):
        end = self.stream.stored[-1]
        lost = self.following.rewound(end)
        self.losses.append(lost)
        self.tail.restart(lost.until)
        return end.offset

    def read(self, count=10**9):
        """Take so many records, as many as there are."""
        while count and (stored := next((s for s in self.stream.stored if s.offset >= self.cursor), None)):
            count -= 1
            self.cursor = stored.offset + 1
            move = self.following.take(*stored)
            if move.diverged:
                self.open(self.rewind())
            elif move.reopen is not None:
                self.open(move.reopen)
            else:
                self.act(move)

    def act(self, move):
        if move.begin is not None:
            self.tail.restart(move.begin)
        if move.step.lost is not None:
            self.losses.append(move.step.lost)
            self.tail.restart(move.step.lost.until)
        if move.step.record is not None:
            self.tail.append(move.step.record)
            if move.live:
                self.handed += [event.id for event in move.step.record.events]

    @property
    def in_tail(self):
        return [event.id for record in self.tail.records(self.tail.begin) for event in record.events]


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def reader(stream):
    reader = Reader(stream)
    reader.connect()
    reader.read()
    return reader


def test_it_is_known_when_the_end_is_reached_and_only_what_comes_later_is_handed_on(stream):
    for _ in range(10):
        stream.write(2)
    reader = Reader(stream)
    reader.connect()
    reader.read(10)
    assert not reader.following.known
    reader.read()
    assert reader.following.known
    assert (reader.handed, reader.in_tail) == ([], stream.valid)
    stream.write(1)
    reader.read()
    assert reader.handed == stream.valid[-1:]


def test_only_the_newest_are_kept_at_the_start(stream):
    for _ in range(300):
        stream.write(1)
    reader = Reader(stream, count=10)
    reader.connect()
    assert reader.opened == [300 - 10 + 1 - CONTEXT]
    reader.read()
    assert reader.in_tail == stream.valid[-10:]
    assert reader.tail.begin == Position("1", 1, 290, 1)


def test_what_is_void_is_known_from_the_records_before_those_that_are_kept(stream):
    stream.write(1)
    stream.fence()
    stream.zombie()
    stream.write(1)
    reader = Reader(stream, count=2)
    reader.connect()
    reader.read()
    assert reader.in_tail == stream.valid[-1:]


def test_a_log_whose_newest_record_is_junk_becomes_known(stream):
    stream.write(1)
    stream.raw(JUNK)
    reader = Reader(stream)
    reader.connect()
    reader.read()
    assert reader.following.known
    stream.write(1)
    reader.read()
    assert (reader.handed, reader.losses) == (stream.valid[-1:], [])


def test_a_log_of_junk_is_not_known_before_its_first_good_record(stream):
    stream.stored.clear()
    stream.raw(JUNK)
    reader = Reader(stream)
    reader.connect()
    reader.read()
    assert not reader.following.known
    stream.write(1)
    reader.read()
    assert reader.following.known
    assert reader.handed == stream.valid[-1:]


def test_it_asks_for_the_last_record_again(stream, reader):
    stream.write(1)
    reader.read()
    stream.write(1)
    reader.connect()
    assert reader.opened[-1] == 1
    reader.read()
    assert (reader.handed, reader.losses) == (stream.valid, [])


def test_retention_that_took_only_what_was_read_is_no_loss(stream, reader):
    stream.write(1)
    reader.read()
    stream.write(1)
    stream.drop(2)
    reader.connect()
    reader.read()
    assert (reader.handed, reader.losses) == (stream.valid, [])


def test_retention_that_took_more_is_told(stream, reader):
    stream.write(1)
    reader.read()
    for _ in range(5):
        stream.write(1)
    stream.drop(4)
    reader.connect()
    reader.read()
    (lost,) = reader.losses
    assert lost == (Position("1", 1, 1, 1), Position("1", 1, 4, 0), RETENTION)
    assert reader.handed == [*stream.valid[:1], *stream.valid[-3:]]
    assert reader.tail.begin == lost.until


def test_a_reader_that_is_overtaken_while_it_reads_says_so(stream, reader):
    for _ in range(9):
        stream.write(1)
    reader.read(2)
    stream.drop(6)
    reader.read()
    (lost,) = reader.losses
    assert (lost.after.offset, lost.until.offset, lost.reason) == (2, 6, RETENTION)
    assert reader.handed == [*stream.valid[:2], *stream.valid[-4:]]


def test_offsets_that_rabbitmq_uses_up_are_no_loss(stream, reader):
    for count in (1, 2, 1, 5):
        stream.skip(count)
        stream.write(1)
    reader.read()
    assert (reader.handed, reader.losses) == (stream.valid, [])
    assert len(reader.opened) == 3  # a single one is not even looked at


def test_another_log_is_read_from_its_first_record(stream, reader):
    stream.write(1)
    reader.read()
    end = reader.tail.end
    stream.anew()
    for _ in range(5):
        stream.write(1)
    reader.connect()
    reader.read()
    assert reader.losses == [(end, Position("2", 1, 0, 0), ANEW)]
    assert reader.handed[1:] == stream.valid
    assert reader.tail.begin == Position("2", 1, 0, 0)


def test_another_log_that_is_shorter_is_found_at_once(stream, reader):
    for _ in range(5):
        stream.write(1)
    reader.read()
    stream.anew()
    reader.connect()
    assert reader.opened[-1] == "first"
    reader.read()
    assert reader.losses[0].reason == ANEW
    stream.write(1)
    reader.read()
    assert reader.handed[5:] == stream.valid


def test_another_log_in_the_same_stream_begins_where_it_begins(stream, reader):
    stream.write(1)
    reader.read()
    stream.epoch, stream.term = "ff", 1
    stream.write(2)
    reader.read()
    assert reader.losses == [(Position("1", 1, 1, 1), Position("ff", 1, 2, 0), ANEW)]
    assert reader.handed == stream.valid


def test_a_log_that_ends_before_what_was_read_is_looked_at_again_first(stream, reader):
    for _ in range(5):
        stream.write(1)
    reader.read()
    behind = stream.stored[-3]
    assert reader.following.resume(behind) is None
    assert reader.following.resume(stream.stored[-1]) == 5


def test_an_older_copy_is_told_and_read_on_from_its_end(stream, reader):
    for _ in range(5):
        stream.write(1)
    reader.read()
    stream.restore(3)
    reader.connect()
    reader.read()
    assert reader.losses == [(Position("1", 1, 5, 1), Position("1", 1, 2, 1), RESTORED)]
    stream.write(1)
    reader.read()
    assert reader.handed[5:] == stream.valid[-1:]


def test_an_older_copy_that_has_grown_past_what_was_read_is_told(stream, reader):
    for _ in range(5):
        stream.write(1)
    reader.read()
    stream.restore(3)
    for _ in range(9):
        stream.write(1)
    reader.connect()
    reader.read()
    assert reader.losses == [(Position("1", 1, 5, 1), Position("1", 2, 11, 1), RESTORED)]
    stream.write(1)
    reader.read()
    assert reader.handed[5:] == stream.valid[-1:]


def test_junk_is_passed_over_with_a_range_of_its_own(stream, reader):
    stream.write(1)
    stream.raw(JUNK)
    stream.write(1)
    reader.read()
    (lost,) = reader.losses
    assert lost[:2] == (Position("1", 1, 1, 1), Position("1", 1, 2, 0))
    assert reader.handed == stream.valid
    assert reader.tail.covers(lost.until)


def test_junk_that_was_read_last_is_asked_for_again(stream, reader):
    stream.raw(JUNK)
    reader.read()
    reader.connect()
    stream.write(1)
    reader.read()
    assert (len(reader.losses), reader.handed) == (1, stream.valid)


def test_counts_go_on_over_another_log(stream, reader):
    stream.fence()
    stream.zombie()
    stream.raw(JUNK)
    reader.read()
    stream.anew()
    reader.connect()
    stream.raw(JUNK)
    reader.read()
    assert (reader.following.voided, reader.following.unreadable) == (1, 2)


HARMLESS = [
    st.tuples(st.just("write"), st.integers(0, 3)),
    st.tuples(st.just("skip"), st.integers(1, 4)),
    st.tuples(st.just("fence")),
    st.tuples(st.just("zombie")),
]
HARMFUL = [
    st.tuples(st.just("drop"), st.integers(1, 6)),
    st.tuples(st.just("recover"), st.integers(1, 6)),
    st.tuples(st.just("anew")),
    st.tuples(st.just("raw"), st.just(JUNK)),
]
READING = [st.tuples(st.just("read"), st.integers(1, 4)), st.tuples(st.just("connect"))]


def lived(steps):
    """A reader that lived through all of it and then came to the end."""
    stream = Stream()
    reader = Reader(stream)
    reader.connect()
    reader.read()
    for name, *values in steps:
        getattr(reader if name in {"read", "connect"} else stream, name)(*values)
    stream.write(1)
    reader.connect()
    reader.read()
    return reader


@given(st.lists(st.one_of(*HARMLESS, *READING), max_size=40))
def test_nothing_is_lost_or_repeated_where_nothing_is_taken_away(steps):
    reader = lived(steps)
    assert reader.losses == []
    assert reader.handed == reader.stream.valid


@given(st.lists(st.one_of(*HARMLESS, *HARMFUL, *READING), max_size=40))
def test_whatever_happens_nothing_is_repeated_and_what_is_behind_the_last_loss_is_complete(steps):
    reader = lived(steps)
    assert len(set(reader.handed)) == len(reader.handed)
    assert reader.following.settled
    behind = reader.losses[-1].until if reader.losses else Position("1", 0, 0, 0)
    left = reader.stream.ids(behind) if behind.epoch == reader.stream.epoch else None
    assert left is not None, "the last loss leads into the log that there is"
    # A void record can't be told when retention took the fence before it.
    handed, in_tail = (
        [each for each in found if each in reader.stream.valid] for found in (reader.handed, reader.in_tail)
    )
    assert handed[len(handed) - len(left) :] == left
    assert reader.tail.begin == behind or not reader.losses
    assert in_tail[len(in_tail) - len(left) :] == left or not reader.losses
