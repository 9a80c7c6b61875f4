"""What a body may be, and how many events it may hold: counted before there are objects for them."""

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.errors import PeerError
from towerbus.intake.bodies import TooLargeError, read

SIZE = 4 * 1024 * 1024
GOOD = b'{"group":"jobs","type":"x","payload":{"n":1}}'
EMPTY_ITEMS = b"[" + b"{}," * (SIZE // 3) + b"{}]"


def costly(name, body, error="", **given):
    return pytest.param(body, error, given, id=name)


@pytest.mark.parametrize(
    ("body", "error", "given"),
    [
        costly("objects", EMPTY_ITEMS, "more than 10000 events"),
        costly("events", b"[" + (GOOD + b",") * (SIZE // len(GOOD)) + GOOD + b"]", "more than 10000 events"),
        costly("numbers", b"[" + b"1," * (SIZE // 2) + b"1]", "$[0]"),
        costly("nested", b"[" + EMPTY_ITEMS + b"]", "$[0]"),
        costly("lines", b"{}\n" * (SIZE // 3), "line 1"),
        costly("known lines", b"{}\n" * (SIZE // 3), "line 1", lines=True),
        costly("events in lines", (GOOD + b"\n") * (SIZE // len(GOOD)), "more than 10000 events"),
        costly("blank lines", b"x" + b"\n \r" * (SIZE // 3) + GOOD, "not an event"),
        costly("known blank lines", b"\n\n" * (SIZE // 2) + GOOD, lines=True),
        costly("large first line", b'{"a":' + EMPTY_ITEMS + b"}\n" + GOOD, "line 1"),
        costly("large other key", GOOD[:-1] + b',"more":' + EMPTY_ITEMS + b"}"),
        costly("large group", b'{"group":"' + b"g" * SIZE + b'","payload":{"n":1}}', "group-type"),
        costly("large number", b'{"group":"g","type":' + b"1" * SIZE + b',"payload":{"n":1}}', "type"),
    ],
)
def test_a_body_costs_a_small_multiple_of_its_size(body, error, given):
    tracemalloc.start()
    try:
        read(body, **given)
        said = ""
    except PeerError as failed:
        said = str(failed)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert error in said
    assert bool(error) == bool(said)
    assert len(said) < 300
    assert peak < 5 * SIZE


def array(items):
    return b"[" + b" , ".join(items) + b"]"


@pytest.mark.parametrize("join", [array, b"\n".join])
def test_as_many_events_as_the_limit_are_taken_and_one_more_is_not(join):
    assert len(read(join([GOOD] * 10_000))) == 10_000
    with pytest.raises(TooLargeError, match="more than 10000 events"):
        read(join([GOOD] * 10_001))


@given(
    st.integers(1, 3),
    st.lists(
        st.sampled_from(
            [GOOD, b'{"group":"a","type":[1,2,3],"payload":{}}', b"{}", b"1", b'","', b"[1,2]", b"null", b"x"]
        )
    ),
    st.sampled_from([array, b"\n".join]),
)
def test_the_limit_counts_events_and_nothing_else(limit, items, join):
    body = join(items)
    try:
        events = read(body, max_events=limit)
    except TooLargeError as error:
        assert f"more than {limit} events" in str(error)
        assert len(items) > limit
    except PeerError:
        assert not items or set(items) != {GOOD}
    else:
        assert len(events) == len(items) <= limit


@given(st.lists(st.sampled_from([b"", b" ", b"\t", b"\r", GOOD, b" " + GOOD + b" \r"]), min_size=1), st.booleans())
def test_a_line_with_a_fault_is_named_by_its_number(lines, known):
    # A first line that is an event makes it known that there is one a line.
    body = b"\n".join([GOOD, *lines, b'{"group":1}'])
    with pytest.raises(PeerError) as error:
        read(body, lines=known)
    assert str(error.value).startswith(f"line {len(lines) + 2}: not an event")


@pytest.mark.parametrize("between", [b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x85", "\u2028".encode(), b" "])
def test_only_a_newline_ends_a_line(between):
    assert len(read(GOOD + b" \r\n" + GOOD, lines=True)) == 2
    with pytest.raises(PeerError, match="line 2: not an event"):
        read(GOOD + b"\n" + GOOD + between + GOOD, lines=True)


def test_the_bytes_of_a_payload_stay_as_they_are_in_every_form():
    payload = b'{ "n" :1.0,"n":2, "t":"\\u00e4"}'
    one = b'{"payload":' + payload + b',"group":"g","type":1,"id":"i"}'
    for body, given_ in ((one, {}), (b"[" + one + b"]", {}), (one + b"\n" + one, {}), (one, {"lines": True})):
        assert {event.payload for event in read(body, **given_)} == {payload}
    assert msgspec.json.decode(payload) == {"n": 2, "t": "ä"}
