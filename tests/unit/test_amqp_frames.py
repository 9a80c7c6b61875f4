"""The broker's bytes in any pieces: deliveries come out whole and in order, everything else goes to pika."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from towerbus.amqp.frames import Frames
from towerbus.amqp.properties import UNREADABLE

FRAME_MAX = 40
short = st.text(max_size=20)
properties = st.builds(
    BasicProperties,
    content_type=st.none() | short,
    headers=st.none() | st.dictionaries(short, short | st.integers(-(2**31), 2**31 - 1), max_size=3),
    message_id=st.none() | short,
    timestamp=st.none() | st.integers(0, 2**64 - 1),
)
deliveries = st.tuples(
    st.integers(1, 3), st.integers(1, 2**40), st.booleans(), short, short, properties, st.binary(max_size=100)
)


def content(number, tag, redelivered, exchange, key, properties, body, consumer="mine"):
    """The frames of a delivery, as pika writes them."""
    method = spec.Basic.Deliver(consumer, tag, redelivered, exchange, key)
    frames = [frame.Method(number, method).marshal(), frame.Header(number, len(body), properties).marshal()]
    return frames + [frame.Body(number, body[n : n + FRAME_MAX]).marshal() for n in range(0, len(body), FRAME_MAX)]


def taken(pieces, consumers=(1, 2, 3)):
    """What the consumers got, by channel, and what pika got."""
    got, other = {number: [] for number in consumers}, []
    frames = Frames({(number, "mine"): got[number].append for number in consumers}, {}, other.append)
    for piece in pieces:
        frames.received(piece)
    assert frames.left() == b""
    assert frames.taken == sum(map(len, pieces)) - sum(map(len, other))
    return got, other


def shown(delivery):
    return delivery._replace(properties={name: getattr(delivery.properties, name) for name in vars(NONE)})


@given(st.lists(deliveries, max_size=8), st.lists(st.integers(1, 200)), st.data())
def test_deliveries_come_out_whole_whatever_the_pieces(given_, sizes, data):
    queues = {number: [part for each in given_ if each[0] == number for part in content(*each)] for number in (1, 2, 3)}
    stream = b""
    while any(queues.values()):
        # Channels take turns, frame by frame; heartbeats come at any time.
        number = data.draw(st.sampled_from([number for number, queue in queues.items() if queue]))
        stream += queues[number].pop(0) + data.draw(st.sampled_from([b"", frame.Heartbeat().marshal()]))
    pieces = []
    for size in [*sizes, len(stream)]:
        pieces.append(stream[:size])
        stream = stream[size:]
    got, other = taken(pieces)
    for number in (1, 2, 3):
        expected = [each for each in given_ if each[0] == number]
        assert [shown(delivery) for delivery in got[number]] == [
            (tag, key, redelivered, vars(properties), body, exchange)
            for _, tag, redelivered, exchange, key, properties, body in expected
        ]
    assert set(other) <= {frame.Heartbeat().marshal()}


NONE = BasicProperties()


def test_the_deliveries_of_others_and_all_other_content_go_to_pika():
    theirs = content(1, 7, False, "", "q", NONE, b"body", consumer="theirs")
    returned = [
        frame.Method(2, spec.Basic.Return(312, "NO_ROUTE", "", "q")).marshal(),
        frame.Header(2, 4, NONE).marshal(),
        frame.Body(2, b"body").marshal(),
    ]
    got, other = taken([b"".join(theirs + returned)])
    assert not any(got.values())
    assert other == theirs + returned


def test_a_consumer_that_is_gone_gets_nothing_more():
    got, other = [], []
    consumers = {(1, "mine"): got.append}
    frames = Frames(consumers, {}, other.append)
    method, header, body = content(1, 7, False, "", "q", NONE, b"body")
    frames.received(method + header)
    consumers.clear()
    frames.received(body)
    assert (got, other) == ([], [])


def test_a_key_that_is_not_utf_8_is_a_text_all_the_same():
    method, *rest = content(1, 7, False, "", "aX.b", NONE, b"{}")
    got, _ = taken([method.replace(b"aX.b", b"a\xff.b"), *rest])
    assert got[1][0].routing_key == "a\\xff.b"


def nested(depth):
    table = b""
    for _ in range(depth):
        inside = b"\x01a" + table if table else b""
        table = b"F" + struct.pack(">I", len(inside)) + inside
    return table


@pytest.mark.parametrize(
    "value", [b"T" + struct.pack(">Q", 2**63), b"T" + struct.pack(">Q", 10**15), nested(3000), b"?"]
)
def test_properties_that_cant_be_decoded_do_not_end_the_connection(value):
    headers = b"\x01h" + value
    data = struct.pack(">H", BasicProperties.FLAG_HEADERS) + struct.pack(">I", len(headers)) + headers
    with pytest.raises(Exception):  # noqa: B017 - whatever pika raises
        BasicProperties().decode(data)
    method, _, body = content(1, 7, False, "", "q", NONE, b"body")
    payload = struct.pack(">HHQ", 60, 0, 4) + data
    header = struct.pack(">BHL", 2, 1, len(payload)) + payload + b"\xce"
    got, other = taken([method + header + body, *content(1, 8, False, "", "q", NONE, b"next")])
    assert other == []
    assert [delivery.body for delivery in got[1]] == [b"body", b"next"]
    assert got[1][0].properties.headers == {UNREADABLE: data}


def test_a_frame_that_does_not_end_where_it_should_is_for_pika_to_refuse():
    method = content(1, 7, False, "", "q", NONE, b"")[0]
    _, other = taken([method[:-1] + b"\x00"])
    assert other == [method[:-1] + b"\x00"]


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 2**63), st.booleans()), max_size=6), st.integers(1, 40)
)
def test_confirms_of_ours_are_taken_and_those_of_others_are_for_pika(confirms, size):
    ours, other = [], []
    frames = Frames({}, {1: lambda tag, multiple: ours.append((tag, multiple))}, other.append)
    stream = b"".join(
        frame.Method(number, spec.Basic.Ack(tag, multiple)).marshal() for number, tag, multiple in confirms
    )
    for at in range(0, len(stream), size):
        frames.received(stream[at : at + size])
    assert ours == [(tag, multiple) for number, tag, multiple in confirms if number == 1]
    assert len(other) == len(confirms) - len(ours)
