"""Positions: parse, write, order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus import positions
from towerbus.positions import Position, PositionError

numbers = st.integers(0, 10**9 - 1)
made = st.builds(Position, st.just("0a"), numbers, numbers, numbers)


@given(made, made)
def test_a_position_is_read_back_and_keeps_its_order(one, other):
    assert positions.parse(str(one)) == one
    assert (positions.parse(str(one)) < positions.parse(str(other))) == (one < other)


@given(st.text())
def test_any_text_is_a_position_or_the_one_error(text):
    try:
        assert str(positions.parse(text)).split("-")[0] == text.split("-")[0]
    except PositionError as error:
        assert "position" in str(error)


@pytest.mark.parametrize("text", ["", "a-1-2", "a-1-2-3-4", "G-1-1-1", "a--1-1-1", "a-1-1-1\n", "a-1-1-٣"])
def test_not_a_position(text):
    with pytest.raises(PositionError):
        positions.parse(text)


def test_epochs_differ():
    assert positions.new_epoch() != positions.new_epoch()
