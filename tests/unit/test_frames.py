"""Frames: what a client's most usual message looks like, and that nothing else is taken for it."""

import pytest
from autobahn.websocket.xormasker import create_xor_masker
from hypothesis import given
from hypothesis import strategies as st

from towerbus.wire.frames import is_pong, whole_text

MOST = 65535
masks = st.binary(min_size=4, max_size=4)
texts = st.text(max_size=300).map(str.encode)


def head(size, *, first=0x81, masked=True, form=None):
    """The two to ten bytes in front of the mask, in the shortest form or in another one."""
    form = form or (1 if size < 126 else 2 if size < 65536 else 8)
    bit = 0x80 if masked else 0
    if form == 1:
        return bytes((first, bit | size))
    return bytes((first, bit | {2: 126, 8: 127}[form])) + size.to_bytes(form)


def masked(payload, mask):
    return mask + (create_xor_masker(mask, len(payload)).process(payload) if payload else b"")


@given(text=texts, mask=masks)
def test_a_text_in_one_masked_frame_is_taken(text, mask):
    assert whole_text(head(len(text)) + masked(text, mask), MOST) == text


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 127, 128, 65535])
def test_at_each_length(size):
    text = (b"0123456789" * (size // 10 + 1))[:size]
    assert whole_text(head(size) + masked(text, b"\x01\xfe\x00\x80"), MOST) == text


@given(text=texts, mask=masks, at=st.integers(1, 320))
def test_a_part_of_it_is_not(text, mask, at):
    frame = head(len(text)) + masked(text, mask)
    assert whole_text(frame[:-at], MOST) is None


@given(text=texts, mask=masks, more=st.binary(min_size=1, max_size=140))
def test_nor_one_with_something_behind_it(text, mask, more):
    assert whole_text(head(len(text)) + masked(text, mask) + more, MOST) is None


@pytest.mark.parametrize("first", [0x80, *range(0x82, 0x90), 0x01, 0x91, 0xA1, 0xC1, 0xF1])
def test_nor_other_kinds_pieces_or_reserved_bits(first):
    assert whole_text(head(4, first=first) + masked(b"text", b"mask"), MOST) is None


@pytest.mark.parametrize("size", range(130))
def test_nor_one_without_a_mask_whatever_its_length_says(size):
    for length in (max(0, size - 2), size, size + 4):
        assert whole_text(head(size % 128, masked=False) + b"a" * length, MOST) is None


@pytest.mark.parametrize(("size", "form"), [(5, 2), (125, 2), (0, 8), (5, 8), (119, 8), (126, 8), (133, 8), (65536, 8)])
def test_nor_a_length_in_a_longer_form(size, form):
    assert whole_text(head(size, form=form) + masked(b"a" * size, b"mask"), 2 * MOST) is None


@pytest.mark.parametrize("text", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"])
def test_nor_what_is_not_utf_8(text):
    assert whole_text(head(len(text)) + masked(text, b"mask"), MOST) is None


def test_nor_one_that_is_too_long():
    frame = head(200) + masked(b"a" * 200, b"mask")
    assert whole_text(frame, 200) is not None
    assert whole_text(frame, 199) is None


@given(mask=masks)
def test_an_answer_to_our_ping_is_one_frame_without_payload(mask):
    assert is_pong(b"\x8a\x80" + mask)
    assert not is_pong(b"\x8a\x80" + mask + b"\x8a")
    assert not is_pong(b"\x8a\x81" + mask + b"a")
    assert not is_pong(b"\x8a\x80" + mask[1:])
    assert not is_pong(b"\x89\x80" + mask)
