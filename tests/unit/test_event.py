"""Events: what a producer may give."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.event import EventError, check_payload, event
from towerbus.topics import TopicError


def test_the_payload_stays_byte_for_byte():
    payload = b'{ "a" : 1.0,\n"b":"\\u00e4" , "a":2}'
    assert event("jobs", "x", payload).payload is payload


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b" {} ", b"[]", b"1", b"null", b'"x"', b"{", b'{"a":NaN}', b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b'{"a":1}x',
     b'{"a":"\\ud800"}', b"{'a':1}", b'{"a":' * 100_000, b'{"a":1,}'],
)  # fmt: skip
def test_payloads_that_are_refused(payload):
    with pytest.raises(EventError, match="payload"):
        event("jobs", "x", payload)


def test_a_payload_over_the_limit_is_refused():
    check_payload(b'{"a":1}', 7)
    with pytest.raises(EventError, match="limit of 6"):
        check_payload(b'{"a":1}', 6)


@pytest.mark.parametrize("id_", ["", "a b", "é", "x" * 129, "a\n"])
def test_ids_that_are_refused(id_):
    with pytest.raises(EventError, match="id"):
        event("jobs", "x", b'{"a":1}', id=id_)


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1.0, 1.8e12])
def test_times_that_are_refused(at):
    with pytest.raises(EventError, match="seconds since 1970"):
        event("jobs", "x", b'{"a":1}', at=at)


def test_an_event_without_an_id_gets_one():
    assert event("jobs", "x", b'{"a":1}').id != event("jobs", "x", b'{"a":1}').id


def test_internal_groups_are_refused():
    with pytest.raises(TopicError):
        event("_towerbus", "x", b'{"a":1}')


@given(st.binary())
def test_any_bytes_are_a_payload_or_the_one_error(payload):
    try:
        check_payload(payload)
    except EventError:
        return
    assert isinstance(json.loads(payload), dict)
