"""A message's content: what goes out is what pika writes, and what comes in is what pika reads, when it is asked for."""

import copy
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, exceptions, frame, spec

from towerbus.amqp.names import PERSISTENT
from towerbus.amqp.plain import events_properties
from towerbus.amqp.properties import EVENTS, UNREADABLE, Received, Stamp
from towerbus.amqp.publishing import content_frames, publish_method
from towerbus.intake.messages import PACKED

TYPE = "text/x-test"
ids = st.text(max_size=60)
times = st.none() | st.integers(0, 2**64 - 1)


def as_pika(id_, time):
    return BasicProperties(content_type=TYPE, delivery_mode=PERSISTENT, message_id=id_, timestamp=time)


@given(ids, times, st.binary(max_size=40), st.integers(1, 50), st.booleans(), st.text(max_size=20))
def test_a_message_goes_out_as_pika_writes_it(id_, time, body, room, mandatory, key):
    properties = as_pika(id_, time)
    published = spec.Basic.Publish(exchange="there", routing_key=key, mandatory=mandatory)
    assert publish_method(3, "there", key, mandatory) == frame.Method(3, published).marshal()
    bodies = [frame.Body(3, body[at : at + room]).marshal() for at in range(0, len(body), room)]
    expected = [frame.Header(3, len(body), properties).marshal(), *bodies]
    assert content_frames(3, body, properties, room) == expected
    assert content_frames(3, body, Stamp(TYPE)(id_, time), room) == expected


@pytest.mark.parametrize(
    "make", [lambda: publish_method(1, "", "k" * 256, True), lambda: content_frames(1, b"", EVENTS("i" * 256), 9)]
)  # noqa: FBT003
def test_a_text_that_is_too_long_is_refused(make):
    with pytest.raises(exceptions.ShortStringTooLong):
        make()


def received(**given_):
    return Received(b"".join(BasicProperties(**given_).encode()))


def test_properties_are_decoded_when_one_is_asked_for():
    properties = received(content_type=TYPE, headers={"a": 1}, message_id="x", timestamp=7)
    assert not vars(properties)
    with pytest.raises(AttributeError):
        properties.nonsense  # noqa: B018
    assert not vars(properties), "a wrong name decodes nothing"
    assert properties.headers == {"a": 1}
    assert (properties.content_type, properties.message_id, properties.timestamp) == (TYPE, "x", 7)
    assert properties.reply_to is None


def test_a_copy_has_all_that_the_original_has():
    properties = received(message_id="x", headers={"a": 1})
    copied = copy.copy(properties)
    assert (copied.message_id, copied.headers) == ("x", {"a": 1})
    assert copied == BasicProperties(message_id="x", headers={"a": 1})


def test_properties_that_cant_be_decoded_are_one_header():
    data = struct.pack(">H", BasicProperties.FLAG_HEADERS) + b"\x00\x00\x00\x09\x01hT" + b"\xff" * 6
    assert Received(data).headers == {UNREADABLE: data}
    assert Received(data).message_id is None


@given(ids)
def test_what_the_blocking_emitter_publishes_is_known_by_its_bytes(id_):
    assert EVENTS.made(Received(b"".join(events_properties(id_).encode())))


@given(ids)
def test_a_stamp_knows_its_own(id_):
    ours = Received(b"".join(EVENTS(id_).encode()))
    assert EVENTS.made(ours)
    assert (ours.content_type, ours.message_id) == (PACKED, id_)


@pytest.mark.parametrize(
    "other",
    [
        {"content_type": PACKED + "x"},
        {"content_type": "application/json"},
        {"headers": {"a": 1}},
        {"timestamp": 7},
        {"delivery_mode": None},
        {"message_id": None},
    ],
)
def test_a_stamp_knows_what_is_not_its_own(other):
    ours = {"content_type": PACKED, "delivery_mode": PERSISTENT, "message_id": "x"}
    assert EVENTS.made(received(**ours))
    assert not EVENTS.made(received(**ours | other))
    assert not EVENTS.made(BasicProperties(**ours))
