"""The same bytes straight to many sockets: the C loop and the Python loop do the same."""

import gc
import os
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loops import LOOPS, loop_named

from towerbus.wire import eager


class Outlet:
    def __init__(self, eager):
        self.eager = eager


@pytest.fixture(params=LOOPS)
def send_each(request):
    return loop_named(request.param)


@pytest.fixture
def pair():
    """Makes connected TCP sockets; the first does not block."""
    made = []

    def connected():
        with socket.create_server(("127.0.0.1", 0)) as server:
            far = socket.create_connection(server.getsockname())
            near, _ = server.accept()
        near.setblocking(False)
        made.extend((near, far))
        return near, far

    yield connected
    for each in made:
        each.close()


@pytest.fixture
def unread_pair():
    """Connected Unix sockets: the kernel makes no room by itself in one that is full."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


def arrived(far, size):
    """What has come, once that much is there."""
    far.settimeout(10)
    data = b""
    while len(data) < size:
        more = far.recv(1 << 20)
        assert more, "it ended"
        data += more
    return data


def fill(near):
    """Send until the kernel takes no more; the number of bytes."""
    total = 0
    try:
        while True:
            total += near.send(b"f" * 65536)
    except BlockingIOError:
        return total


def test_all_get_the_same_bytes(send_each, pair):
    pairs = [pair() for _ in range(20)]
    for kind in (set, tuple, list, dict.fromkeys):
        assert send_each(kind(Outlet(near) for near, _ in pairs), b"hello") == []
    for _, far in pairs:
        assert arrived(far, 20) == b"hello" * 4


def test_who_is_not_eager_is_told_and_gets_nothing(send_each, pair):
    (near, far), (other, _) = pair(), pair()
    eager, waiting, also = Outlet(near), Outlet(None), Outlet(None)
    assert send_each([waiting, eager, also], b"x") == [(waiting, 0), (also, 0)]
    assert arrived(far, 1) == b"x"
    assert other is not near


def test_what_the_kernel_does_not_take_is_told_to_the_byte(send_each, pair, unread_pair):
    (near, far), (full, full_far) = pair(), unread_pair
    filled = fill(full)
    data = os.urandom(8 * 1024 * 1024)
    cut, stuck = Outlet(near), Outlet(full)
    left = dict(send_each([cut, stuck], data))
    assert left[stuck] == 0
    assert 0 < left[cut] < len(data)
    assert arrived(far, left[cut]) == data[: left[cut]]
    assert arrived(full_far, filled) == b"f" * filled
    assert send_each([cut], b"more") == []
    assert arrived(far, 4) == b"more", "nothing stands between"


def test_a_connection_that_takes_no_more_is_told_and_disturbs_nobody(send_each, pair):
    (near, _), (other, other_far) = pair(), pair()
    near.shutdown(socket.SHUT_WR)
    gone, there = Outlet(near), Outlet(other)
    assert send_each([gone, there], b"x") == [(gone, 0)]
    assert arrived(other_far, 1) == b"x"


def test_a_number_that_stands_for_something_else_by_now_is_never_written_to(send_each, pair):
    """A socket that was closed behind the outlet's back; the next one gets its number."""
    (near, _), (stranger, stranger_far) = pair(), pair()
    number = near.fileno()
    outlet = Outlet(near)
    near.close()
    os.dup2(stranger.fileno(), number)
    try:
        assert send_each([outlet], b"not yours") == [(outlet, 0)]
        stranger.send(b"mine")
        assert arrived(stranger_far, 4) == b"mine"
    finally:
        os.close(number)


def test_a_mistake_of_ours_is_an_error_before_anything_is_sent(send_each, pair):
    near, far = pair()
    with pytest.raises(AttributeError):
        send_each([object(), Outlet(near)], b"x")
    for data in ("text", None, 7):
        with pytest.raises(TypeError):
            send_each([Outlet(near)], data)
    with pytest.raises(TypeError):
        send_each(7, b"x")
    near.send(b"only this")
    assert arrived(far, 9) == b"only this"


def test_nothing_is_kept(send_each, pair):
    near, far = pair()
    outlets = {Outlet(near), Outlet(None)}
    data = b"x" * 100
    for _ in range(10):
        send_each(outlets, data)
    gc.collect()
    before = [sys.getrefcount(each) for each in (near, data, outlets, *outlets)]
    for _ in range(500):
        send_each(outlets, data)
        with pytest.raises(AttributeError):
            send_each([object()], data)
    gc.collect()
    assert [sys.getrefcount(each) for each in (near, data, outlets, *outlets)] == before
    assert arrived(far, 510 * 100) == data * 510


@given(st.lists(st.sampled_from(["eager", "waiting", "full", "closed"]), max_size=12), st.integers(0, 200_000))
def test_both_loops_say_the_same_of_the_same_sockets(kinds, size):
    answers = []
    for name in LOOPS:
        near, far = zip(*(socket.socketpair() for _ in kinds), strict=True) if kinds else ((), ())
        outlets = [Outlet(None if kind == "waiting" else each) for kind, each in zip(kinds, near, strict=True)]
        filled = [0] * len(kinds)
        for place, kind in enumerate(kinds):
            near[place].setblocking(False)
            if kind == "full":
                filled[place] = fill(near[place])
            elif kind == "closed":
                near[place].close()
        data = bytes(size)
        left = dict(loop_named(name)(outlets, data))
        answers.append([left.get(outlet, size) for outlet in outlets])
        for place, outlet in enumerate(outlets):
            near[place].close()
            expected = filled[place] + (left.get(outlet, size))
            got = 0
            while more := far[place].recv(1 << 20):
                got += len(more)
            assert got == expected
            far[place].close()
    assert len(answers) == len(LOOPS)
    assert all(answer == answers[0] for answer in answers)


def test_the_compiled_loop_is_the_one_that_is_used():
    if not eager.COMPILED:
        pytest.skip("towerbus was installed without its C loop")
    assert eager.send_each is loop_named("compiled")
