"""Events: what a producer may give."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.event import EventError, check_payload, event, new_id
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


def test_ids_are_128_random_bits_and_never_the_same_twice():
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in ids)
    assert {id_[at] for id_ in ids for at in range(32)} == set("0123456789abcdef")


def test_threads_get_different_ids():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            drawn = list(threads.map(lambda _: [new_id() for _ in range(5000)], range(4)))
    finally:
        sys.setswitchinterval(before)
    assert len({id_ for ids in drawn for id_ in ids}) == 20_000


FORKING = """
import os
from towerbus.event import new_id
new_id()
if os.fork():
    os.wait()
print(*(new_id() for _ in range(1000)))
"""


def test_a_forked_child_gives_other_ids_than_its_parent():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=30, check=True)
    child, parent = (line.split() for line in done.stdout.splitlines())
    assert len({*child, *parent}) == 2000


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
