"""Headers out of properties that can't be decoded."""

from datetime import UTC, datetime
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from towerbus.amqp.tables import long_header

NAME = b"x-stream-offset"
FORGED = b"\x0fx-stream-offsetl" + (7).to_bytes(8)


def raw(headers, **more):
    return b"".join(BasicProperties(headers=headers, **more).encode())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(10**5, 2 * 10**9).map(partial(datetime.fromtimestamp, tz=UTC))
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000, places=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=10), VALUES), st.integers(2**40, 2**60), st.sampled_from([{}, {"type": "x"}]))
def test_it_is_found_among_whatever_else_there_is(others, value, more):
    for headers in ({NAME.decode(): value} | others, others | {NAME.decode(): value}):
        assert long_header(raw(headers, content_type="a/b", content_encoding="c", **more), NAME) == value


@given(st.dictionaries(st.text(max_size=10), VALUES))
def test_none_is_made_up(others):
    assert long_header(raw(others), NAME) is None


def test_what_a_header_holds_is_not_looked_into():
    for value in (FORGED, {"a": FORGED, "x-stream-offset": 2**40}, [FORGED]):
        assert long_header(raw({"a": value}), NAME) is None
        assert long_header(raw({"a": value, "x-stream-offset": 2**50, "z": value}), NAME) == 2**50


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_what_is_cut_off_is_not_found(cut):
    assert long_header(raw({"some": "header of a length", "x-stream-offset": 2**50})[: -cut - 1], NAME) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_taken(data):
    long_header(data, NAME)
