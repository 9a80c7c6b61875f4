"""Records: their positions, and how events are cut into them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from towerbus.event import Event
from towerbus.log.record import MAX_BYTES, MAX_EVENTS, Record, batches
from towerbus.positions import Position
from towerbus.topics import Topic


def event(size):
    return Event(Topic("g", "t"), b"x" * size, "id", 0.0)


def test_places_are_counted_from_one_and_zero_is_before_the_first_event():
    record = Record("0a", 2, 7, (event(1), event(1)))
    assert record.begin == Position("0a", 2, 7, 0)
    assert [record.position(number) for number in range(2)] == [Position("0a", 2, 7, 1), Position("0a", 2, 7, 2)]
    assert record.end == record.position(1)


def test_a_fence_begins_and_ends_at_one_place():
    fence = Record("0a", 2, 7, ())
    assert fence.begin == fence.end == Position("0a", 2, 7, 0)


@given(st.lists(st.sampled_from([1, 100, 20_000, MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1]), max_size=600))
def test_batches_keep_all_in_order_and_in_bounds(sizes):
    cut = list(batches([event(size) for size in sizes]))
    assert [len(each.payload) for batch in cut for each in batch] == sizes
    for batch in cut:
        assert 1 <= len(batch) <= MAX_EVENTS
        assert len(batch) == 1 or sum(len(each.payload) for each in batch) <= MAX_BYTES
    for one, following in pairwise(cut):
        together = sum(len(each.payload) for each in one) + len(following[0].payload)
        assert len(one) == MAX_EVENTS or together > MAX_BYTES
