"""Offers and their answers; messages compressed and inflated, against zlib and the package websockets."""

import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.wires import deflated, inflated
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension

from towerbus.wire.deflate import (
    LEAST,
    NAME,
    WINDOW_BITS,
    CorruptError,
    Deflater,
    Inflater,
    TooLargeError,
    answer,
)
from towerbus.wire.insides import LeanProtocol

BOTH = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
ANSWERS = {
    NAME: BOTH,
    f"{NAME}; client_max_window_bits": BOTH,
    f"{NAME}; client_max_window_bits=8": BOTH,
    f"{NAME}; client_max_window_bits=15": BOTH,
    f'{NAME}; client_max_window_bits="10"': BOTH,
    f"{NAME}; client_no_context_takeover; server_no_context_takeover": BOTH,
    f"{NAME}; server_max_window_bits=12": f"{BOTH}; server_max_window_bits=12",
    f"{NAME}; server_max_window_bits=15; client_max_window_bits=12": f"{BOTH}; server_max_window_bits=12",
    "permessage-bzip2, x-webkit-deflate-frame; no_context_takeover, permessage-deflate": BOTH,
    f"{NAME}; server_max_window_bits=9, {NAME}; unknown, {NAME}; server_max_window_bits=13": f"{BOTH}; server_max_window_bits=12",
    f"{NAME}; server_max_window_bits=10, {NAME}": BOTH,
    # What can't be kept to, or is not an offer at all.
    "": None,
    "permessage-bzip2": None,
    f"{NAME}; server_max_window_bits=11": None,
    f"{NAME}; server_max_window_bits=8": None,
    f"{NAME}; server_max_window_bits": None,
    f"{NAME}; server_max_window_bits=": None,
    f"{NAME}; server_max_window_bits=16": None,
    f"{NAME}; server_max_window_bits=012": None,
    f"{NAME}; server_max_window_bits=+12": None,
    f"{NAME}; server_max_window_bits=1\uff12": None,
    f"{NAME}; server_max_window_bits=12; server_max_window_bits=12": None,
    f"{NAME}; client_max_window_bits=7": None,
    f"{NAME}; client_max_window_bits=16": None,
    f"{NAME}; client_max_window_bits=x": None,
    f"{NAME}; client_max_window_bits; client_max_window_bits=10": None,
    f"{NAME}; client_no_context_takeover=1": None,
    f"{NAME}; server_no_context_takeover=true": None,
    f"{NAME}; unknown": None,
    f"{NAME};": None,
    f"{NAME}; =5": None,
    f"{NAME}-2": None,
}  # fmt: skip


@pytest.mark.parametrize("header", ANSWERS)
def test_offers_and_their_answers(header):
    assert answer(LeanProtocol()._parseExtensionsHeader(header)) == ANSWERS[header]


@given(st.text('permsag-dflt;,= "_xwindowbcv0123456789', max_size=60), st.booleans())
def test_whatever_is_offered_has_an_answer(header, named):
    given_ = f"{NAME};{header}" if named else header
    assert answer(LeanProtocol()._parseExtensionsHeader(given_)) in {None, BOTH, f"{BOTH}; server_max_window_bits=12"}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"server_max_window_bits": WINDOW_BITS, "client_max_window_bits": 12},
        {"server_max_window_bits": 15, "server_no_context_takeover": True},
        {"client_no_context_takeover": True, "client_max_window_bits": True},
    ],
)
def test_another_implementation_understands_the_answer_and_the_frames(wanted):
    factory = ClientPerMessageDeflateFactory(**wanted)
    offer = build_extension([(NAME, factory.get_request_params())])
    taken = answer(LeanProtocol()._parseExtensionsHeader(offer))
    ((name, params),) = parse_extension(taken)
    assert name == NAME
    extension = factory.process_response_params(params, [])
    deflater = Deflater()
    for number in range(5):
        message = b'{"n":%d,"text":"%s"}' % (number, b"again and again " * 100 + bytes(range(35, 91)) * number)
        data = deflater.frame(message)
        assert data[0] == 0xC1
        frame = extension.decode(Frame(Opcode.TEXT, data[4 if data[1] == 126 else 2 :], rsv1=True))
        assert bytes(frame.data) == message
        sent = extension.encode(Frame(Opcode.TEXT, message))
        inflater = Inflater()
        assert inflater.more(bytes(sent.data), len(message)) == message
        inflater.end()


@given(
    st.binary(max_size=3000) | st.builds(lambda part, times: part * times, st.binary(max_size=40), st.integers(0, 3000))
)
@example(b"x" * 65535)
@example(b"x" * 2_000_000)
@example(bytes(range(256)) * 5000)
def test_what_is_compressed_inflates_to_the_message_and_is_smaller(message):
    deflater = Deflater()
    data = deflater.frame(message)
    head = {126: 4, 127: 10}.get(data[1], 2)
    payload = data[head:]
    assert len(payload) == (data[1] if head == 2 else int.from_bytes(data[2:head]))
    if data[0] == 0x81:
        assert payload == message
    else:
        assert data[0] == 0xC1
        assert len(payload) < len(message) >= LEAST
        assert inflated(payload) == message
    assert (deflater.taken, deflater.made) == (len(message), len(payload))


def test_small_messages_and_noise_stay_as_they_are():
    deflater = Deflater()
    assert deflater.frame(b"a" * (LEAST - 1))[0] == 0x81
    assert deflater.frame(b"a" * LEAST)[0] == 0xC1
    noise = zlib.compress(bytes(i * i % 251 for i in range(50_000)) * 3, 9)
    noise = b"".join(zlib.crc32(noise + bytes([i])).to_bytes(4) for i in range(200))
    assert deflater.frame(noise)[0] == 0x81


@given(st.binary(max_size=400), st.integers(8, 15), st.lists(st.integers(0, 400), max_size=5))
def test_a_message_is_inflated_however_it_is_cut(message, window, cuts):
    data = deflated(message, window=max(window, 9))
    places = sorted(min(cut, len(data)) for cut in cuts)
    inflater, found = Inflater(), b""
    for begin, end in zip([0, *places], [*places, len(data)], strict=True):
        found += inflater.more(data[begin:end], len(message) - len(found))
    inflater.end()
    assert found == message


def test_a_message_may_end_its_stream():
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = stream.compress(b"hello") + stream.flush() + b"\0"
    inflater = Inflater()
    assert inflater.more(data, 5) == b"hello"
    inflater.end()
    with pytest.raises(CorruptError, match="behind its last block"):
        Inflater().more(data + b"more", 5)
    inflater = Inflater()
    inflater.more(data, 5)
    with pytest.raises(CorruptError, match="behind its last block"):
        inflater.more(b"\0", 5)


@pytest.mark.parametrize("room", [0, 1, 999, 65_536])
def test_of_a_bomb_no_more_is_made_than_may_be(room):
    bomb = deflated(b"\0" * 30_000_000)
    assert len(bomb) < 32_768
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            Inflater().more(bomb, room)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * room + 200_000
    inflater = Inflater()
    assert inflater.more(deflated(b"x" * room), room) == b"x" * room
    with pytest.raises(TooLargeError):
        Inflater().more(deflated(b"x" * (room + 1)), room)


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", deflated(b"hello" * 100)[:-1], deflated(b"hello" * 100)[:-3]])
def test_what_is_not_a_whole_message(data):
    inflater = Inflater()
    with pytest.raises(CorruptError):  # noqa: PT012 - by the one or the other
        inflater.more(data, 1000)
        inflater.end()


@given(st.binary(max_size=60))
def test_anything_is_a_message_or_one_of_the_two_errors(data):
    inflater = Inflater()
    try:
        found = inflater.more(data, 100)
        inflater.end()
    except (TooLargeError, CorruptError):
        return
    assert len(found) <= 100
