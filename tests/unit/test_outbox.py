"""The outbox: order and bound."""

from hypothesis import given
from hypothesis import strategies as st

from towerbus.outbox import Outbox


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 60), st.integers(1, 200))
def test_what_is_taken_is_what_was_offered_in_whole_entries(entries, amount, limit):
    box, kept, ends = Outbox(limit), b"", {0}
    for entry in entries:
        if box.offer(entry):
            kept += entry
            ends.add(len(kept))
        assert box.size <= max(limit, len(entries[0]))
    taken = b""
    while box:
        taken += box.take(amount)
        assert len(taken) in ends
    assert taken == kept
    assert box.size == 0


def test_one_entry_is_taken_whatever_its_size_and_then_no_more():
    box = Outbox(10)
    assert box.offer(b"x" * 100)
    assert not box.offer(b"y")
    assert box.take(1) == b"x" * 100


def test_clear_tells_what_it_dropped():
    box = Outbox(10)
    box.offer(b"abc")
    box.offer(b"de")
    assert box.clear() == 5
    assert not box
    assert box.size == 0
