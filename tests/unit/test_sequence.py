"""What counts among stored records."""

import pytest

from towerbus.event import Event
from towerbus.log.packing import pack
from towerbus.log.record import Record
from towerbus.log.sequence import NOTHING, AnotherLog, Sequence, without_internal
from towerbus.positions import Lost, Position
from towerbus.topics import Topic

BEGIN = Position("ab", 5, 9, 1)


def event(number, group="jobs"):
    return Event(Topic(group, "x"), b'{"n":%d}' % number, str(number), 0.0)


def body(*events, term=5, epoch="ab"):
    return pack(Record(epoch, term, 0, events))


def test_records_count_and_move_the_end():
    sequence = Sequence(BEGIN)
    step = sequence.take(10, body(event(1), event(2)))
    assert (step.record.offset, len(step.record.events), step.lost) == (10, 2, None)
    assert sequence.end == Position("ab", 5, 10, 2)


def test_the_first_good_record_shows_what_log_it_is():
    sequence = Sequence(None)
    assert sequence.take(3, b"junk") is NOTHING
    assert sequence.end is None
    sequence.take(4, body(event(1), term=7))
    assert sequence.end == Position("ab", 7, 4, 1)


def test_a_record_below_the_highest_term_is_void():
    sequence = Sequence(BEGIN)
    sequence.take(10, body(term=6))
    assert sequence.take(11, body(event(1), term=5)) is NOTHING
    assert sequence.end == Position("ab", 6, 10, 0)
    assert sequence.take(12, body(event(2), term=6)).record is not None
    assert (sequence.voided, sequence.offset) == (1, 12)


def test_what_cannot_be_read_is_lost_and_no_more_than_that():
    sequence = Sequence(BEGIN)
    step = sequence.take(10, b"\x94\x09")
    assert step.record is None
    assert step.lost == Lost(BEGIN, Position("ab", 5, 10, 0), step.lost.reason)
    assert "offset 10" in step.lost.reason
    assert sequence.take(11, body(event(1))).lost is None
    assert sequence.unreadable == 1


def test_another_epoch_takes_nothing():
    sequence = Sequence(BEGIN)
    with pytest.raises(AnotherLog) as caught:
        sequence.take(10, body(event(1), epoch="cd"))
    assert caught.value.record.epoch == "cd"
    assert sequence.end == BEGIN


def test_a_segments_own_offset_is_no_leap():
    sequence = Sequence(BEGIN)
    assert not sequence.leaps(10)
    assert not sequence.leaps(11)
    assert sequence.leaps(12)


def test_internal_events_are_taken_out_and_do_not_count_as_places():
    sequence = Sequence(BEGIN)
    canary = event(0, "_towerbus")
    step = sequence.take(10, body(canary, event(1), canary, event(2)))
    assert [each.id for each in step.record.events] == ["1", "2"]
    assert step.internal == [canary, canary]
    assert sequence.end == Position("ab", 5, 10, 2)
    assert sequence.take(11, body(canary)).record.events == ()


def test_a_record_without_internal_events_is_not_touched():
    record = Record("ab", 5, 1, (event(1),))
    assert without_internal(record) == (record, ())
    assert without_internal(record)[0] is record


def test_a_group_without_a_name_harms_nobody():
    record = Record("ab", 5, 1, (event(1, ""),))
    assert without_internal(record)[0] is record
