"""The packed form of a record: what goes in comes out, and any bytes give a record or the one error."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from towerbus.event import Event
from towerbus.log.packing import NotARecord, pack, unpack
from towerbus.log.record import Record
from towerbus.topics import Topic

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
events = st.builds(
    Event, st.builds(Topic, text, text), st.binary(max_size=300), text, st.floats(allow_nan=False, allow_infinity=False)
)
epochs = st.from_regex("[0-9a-f]{1,16}", fullmatch=True)
numbers = st.integers(0, 10**18 - 1)
records = st.builds(Record, epochs, numbers, numbers, st.lists(events, max_size=5).map(tuple))

ONE = Record("0a", 7, 3, (Event(Topic("jobs", "x"), b'{"n":1}', "id", 1.5),))


@given(records)
def test_what_is_packed_is_read_back(record):
    read = unpack(pack(record), record.offset)
    assert read == record
    assert all(type(event) is Event and type(event.topic) is Topic for event in read.events)


def test_the_form_is_what_the_page_says():
    """Other programs and other editions read this: it changes with the version only."""
    assert msgspec.msgpack.decode(pack(ONE)) == [1, "0a", 7, [[["jobs", "x"], b'{"n":1}', "id", 1.5]]]


def test_what_a_later_edition_appends_is_passed_over():
    later = msgspec.msgpack.encode([1, "0a", 7, [[["jobs", "x"], b'{"n":1}', "id", 1.5, "new"]], {"more": 1}])
    assert unpack(later, 3) == ONE


@pytest.mark.parametrize("data", [[2, {"a": "map"}], [2, "0a", 7, []], [0], [-1, "", 0]])
def test_another_version_is_named(data):
    with pytest.raises(NotARecord, match=f"version {data[0]}; this edition .* version 1"):
        unpack(msgspec.msgpack.encode(data), 3)


def read(data):
    try:
        return unpack(data, 5)
    except NotARecord as error:
        assert "offset 5" in str(error)


@given(st.binary(max_size=400))
@example(b"")
@example(b"\x91" * 100_000)
@example(b"\x95\x01\xa20a\x07\x90" + b"\x91" * 100_000 + b"\x01")
@example(b"\x94\x01\xa1\xff\x07\x90")
@example(b"\x94\x01\xa20\xff\x07\x90")
@example(b"\x94\x01\xa20a\x07\xdd\xff\xff\xff\xff")
@example(msgspec.msgpack.encode([1, "0a\n", 7, []]))
@example(msgspec.msgpack.encode([1, "0a", 10**18, []]))
def test_any_bytes_are_a_record_or_the_one_error(data):
    record = read(data)
    assert record is None or record.offset == 5


@given(records, st.data())
def test_a_damaged_record_is_a_record_or_the_one_error(record, data):
    packed = bytearray(pack(record))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    damaged = read(bytes(packed))
    if damaged is not None:
        assert all(type(event.payload) is bytes and type(event.id) is str for event in damaged.events)


@given(records)
def test_a_cut_record_is_the_one_error(record):
    packed = pack(record)
    for size in range(len(packed)):
        assert read(packed[:size]) is None


@pytest.mark.parametrize("epoch", ["", "0a\n", "G", "0" * 17])
def test_an_epoch_that_no_position_could_have_is_refused(epoch):
    with pytest.raises(NotARecord, match=r"\$\[1\]"):
        unpack(msgspec.msgpack.encode([1, epoch, 7, []]), 3)
