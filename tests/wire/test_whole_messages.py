"""Messages that come whole in one frame go past Autobahn's parser; whoever sends them notices nothing of it."""

import struct
from contextlib import nullcontext
from itertools import pairwise
from unittest import mock

import pytest
from autobahn.websocket.xormasker import create_xor_masker
from hypothesis import given, settings
from hypothesis import strategies as st
from support.wires import Server
from twisted.internet.testing import StringTransport

from towerbus.wire import insides

HANDSHAKE = (
    b"GET /websocket/?token=good HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PAYLOADS = (
    b"",
    b"{}",
    b'{"groups":{"jobs":["status_changed"]}}',
    b'{"groups":{"jobs":["x"],"job_events":[1,2]}}',
    b'{"groups":{"jobs":["' + b"y" * 126 + b'"]}}',
    b"\xc3\xa4",
    b"\xc3",
    b"\xff",
    b"\x03\xe8",
)
MOST = 600


@st.composite
def frames(draw):
    """A client's frame, right or wrong, most often a whole text."""
    first = draw(st.sampled_from([0x81] * 6 + [0x01, 0x80, 0x82, 0x88, 0x89, 0x8A, 0x8A, 0xC1, 0x83, 0x8B]))
    payload = draw(st.sampled_from(PAYLOADS) | st.binary(max_size=140) | st.just(b'"' + b"a" * MOST))
    masked = draw(st.integers(0, 19)) > 0
    mask = draw(st.binary(min_size=4, max_size=4)) if masked else b""
    form = draw(st.sampled_from([0] * 9 + [126, 127]))
    size = form or (len(payload) if len(payload) < 126 else 126)
    head = bytes((first, (0x80 if masked else 0) | size))
    head += {126: struct.pack("!H", len(payload)), 127: struct.pack("!Q", len(payload))}.get(size, b"")
    return head + mask + (create_xor_masker(mask, len(payload)).process(payload) if mask and payload else payload)


@st.composite
def conversations(draw):
    """What comes, read by read: mostly a frame each, and cut and joined anyhow."""
    said = draw(st.lists(frames(), min_size=1, max_size=6))
    if draw(st.booleans()):
        return said
    data, cuts = b"".join(said), draw(st.lists(st.integers(0, sum(map(len, said))), max_size=6))
    places = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places) if begin < end]


def heard(reads, *, whole):
    """All that a client gets to hear, and what became of the connection."""
    server = Server(max_frame=MOST)
    wire, transport = server.factory.buildProtocol(None), StringTransport()
    short = {} if whole else {"whole_text": lambda *_: None, "is_pong": lambda _: False}
    with mock.patch.multiple(insides, **short) if short else nullcontext():
        wire.makeConnection(transport)
        for data in (HANDSHAKE, *reads):
            wire.dataReceived(data)
            while transport.producer is not None:
                transport.producer.resumeProducing()
    return transport.value(), transport.disconnecting, wire.state, wire.wasClean, wire.session.state, wire.session.heard


@settings(max_examples=400, deadline=None)
@given(reads=conversations())
def test_both_ways_say_and_do_the_same(reads):
    assert heard(reads, whole=True) == heard(reads, whole=False)


def frame(first, payload):
    return bytes((first, 0x80 | len(payload))) + bytes(4) + payload


WHOLE = frame(0x81, b'{"groups":{"jobs":["x"]}}')


@pytest.mark.parametrize(
    "reads",
    {
        "within a message in pieces": [frame(0x01, b'{"gro'), WHOLE],
        "behind the first byte of a frame": [b"\x81", WHOLE, bytes(10)],
        "behind a frame's head": [b"\x82\xfe\x00", b"\x7e", WHOLE, bytes(200)],
        "as the payload of a frame": [frame(0x82, WHOLE)[:6], WHOLE],
        "behind a close": [frame(0x88, b"\x03\xe8"), WHOLE],
        "behind what ended the connection": [frame(0x83, b""), WHOLE],
        "behind a message that ends the session": [frame(0x81, b"no"), *[frame(0x81, b"[]")] * 20, WHOLE],
        "a pong with the beginning of more": [frame(0x8A, b"") + WHOLE[:3], WHOLE[3:]],
        "a pong within a message in pieces": [frame(0x01, WHOLE[6:10]), frame(0x8A, b""), frame(0x80, WHOLE[10:])],
        "each byte by itself": [bytes((byte,)) for byte in WHOLE],
        "two at once": [WHOLE + WHOLE],
    }.items(),
    ids=lambda case: case[0],
)
def test_both_ways_do_the_same_where_it_is_easily_mistaken(reads):
    assert heard(reads[1], whole=True) == heard(reads[1], whole=False)


def test_a_message_may_come_byte_by_byte():
    assert heard([bytes((byte,)) for byte in WHOLE * 2], whole=True) == heard([WHOLE, WHOLE], whole=True)


def test_a_whole_message_takes_the_short_way(monkeypatch):
    monkeypatch.setattr(insides.LeanProtocol, "onFrameBegin", lambda _: pytest.fail("the long way"))
    said = heard([WHOLE], whole=True)[0]
    assert b'"groups_joined":["jobs-x"]' in said
