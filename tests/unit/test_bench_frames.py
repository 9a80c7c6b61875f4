"""Frames, against an independent implementation, and whatever may come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from towerbus.bench import frames


@pytest.mark.parametrize("size", [0, 1, 4, 125, 126, 127, 65535, 65536, 100_000])
def test_what_is_sent_is_read_by_others(size):
    payload = bytes(range(256)) * (size // 256 + 1)
    data = frames.masked(frames.TEXT, payload[:size])
    position = [0]

    def read(count):
        yield from ()
        position[0] += count
        return data[position[0] - count : position[0]]

    reading = Frame.parse(read, mask=True)
    with pytest.raises(StopIteration) as stop:
        next(reading)
    assert stop.value.value.data == payload[:size]
    assert position[0] == len(data)


def test_each_mask_is_another():
    assert len({frames.masked(frames.TEXT, b"x" * 20)[2:6] for _ in range(100)}) > 90


@given(st.binary(max_size=300), st.binary(max_size=20), st.integers(0, 400))
def test_what_others_send_is_read_when_it_is_whole(payload, more, cut):
    data = Frame(Opcode.TEXT, payload).serialize(mask=False)
    found = frames.frame(data + more, 0)
    assert found == (frames.TEXT, payload, len(data))
    if cut < len(data):
        assert frames.frame(data[:cut], 0) is None


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_what_others_compress_is_inflated(payload, more):
    extension = PerMessageDeflate(True, True, 15, 12)
    data = Frame(Opcode.TEXT, payload).serialize(mask=False, extensions=[extension])
    found = frames.frame(data + more, 0, compression=True)
    assert found == (frames.TEXT, payload, len(data))
    assert frames.frame(Frame(Opcode.TEXT, payload).serialize(mask=False), 0, compression=True)[1] == payload
    with pytest.raises(frames.FrameError):
        frames.frame(data, 0)


@pytest.mark.parametrize(
    "data", [b"\xc9\x00", b"\xe1\x01x", b"\xc1\x00", b"\xc1\x02\xff\xff", b"\xc1\x04\x03\x00\x00x", b"\x41\x00"]
)
def test_what_is_wrong_with_compression_too(data):
    with pytest.raises(frames.FrameError):
        frames.frame(data, 0, compression=True)


@given(st.binary(max_size=40))
def test_anything_is_a_frame_or_none_or_the_one_error(data):
    try:
        found = frames.frame(data, 0)
    except frames.FrameError:
        return
    assert found is None or 2 <= found.end <= len(data)


@pytest.mark.parametrize(
    "data", [b"\x82\x00", b"\x01\x01x", b"\xc1\x01x", b"\x81\x81abcdx", b"\x81\x7f" + b"\xff" * 8, b"\x89\x7e\1\0"]
)
def test_what_a_server_must_not_send(data):
    with pytest.raises(frames.FrameError):
        frames.frame(data, 0)


def test_the_code_of_a_close():
    assert frames.close_code(b"\x03\xe8bye") == 1000
    assert frames.close_code(b"") == 1005
