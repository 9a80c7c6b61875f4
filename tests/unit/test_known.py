"""What a worker knows of the log."""

from hypothesis import given
from hypothesis import strategies as st

from towerbus.event import Event
from towerbus.log.record import Record
from towerbus.topics import Topic
from towerbus.worker.known import KnownLog


def record(term, *ids, epoch="0a"):
    return Record(epoch, term, 0, tuple(Event(Topic("jobs", "x"), b"{}", id_, 0.0) for id_ in ids))


def test_it_knows_epoch_term_and_ids():
    known = KnownLog()
    assert known.read(record(5, "a"))
    assert known.read(record(5, "b"))
    assert known.read(record(9))
    assert (known.epoch, known.term, len(known.window)) == ("0a", 9, 2)


def test_a_record_below_the_highest_term_is_void():
    known = KnownLog()
    known.read(record(9))
    assert not known.read(record(8, "zombie"))
    assert (known.term, known.voided, len(known.window)) == (9, 1, 0)


def test_the_next_term_is_above_all_that_were_read_and_not_before_now():
    known = KnownLog()
    assert known.next_term(1700.9) == 1700
    known.read(record(5000))
    assert known.next_term(1700.9) == 5001


def test_a_fence_holds_in_an_empty_log_and_above_all_terms():
    known = KnownLog()
    assert known.fenced("0a", 7)
    assert (known.epoch, known.term) == ("0a", 7)
    assert known.fenced("0a", 8)


def test_a_fence_does_not_hold_where_another_of_the_same_term_came_before():
    known = KnownLog()
    known.read(record(7))
    assert not known.fenced("0a", 7)
    assert known.fenced("0a", known.next_term(0))


def test_a_fence_does_not_hold_where_another_made_the_log():
    known = KnownLog()
    known.read(record(7, epoch="0b"))
    assert not known.fenced("0a", 8)
    assert (known.epoch, known.term) == ("0b", 8), "the first epoch stays, and the next fence is above both"


@given(st.lists(st.integers(0, 5)))
def test_what_counts_never_falls(terms):
    known, highest = KnownLog(), 0
    for term in terms:
        assert known.read(record(term)) is (term >= highest)
        highest = max(highest, term)
