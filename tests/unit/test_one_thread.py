"""One thread: in order, off the reactor's thread, and never in the way of the end."""

import subprocess
import sys
import threading

import pytest
import pytest_twisted
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults

from towerbus.log.one_thread import OneThread


@pytest.fixture
def thread():
    made = OneThread(reactor, "test")
    yield made
    made.close()


@pytest_twisted.ensureDeferred
async def test_calls_are_done_in_order_in_one_thread_and_answered_in_the_reactor(thread):
    done, answered_in = [], []
    calls = [thread.run(lambda number=number: done.append((number, threading.get_ident()))) for number in range(50)]
    for call in calls:
        call.addCallback(lambda _: answered_in.append(threading.get_ident()))
    await gatherResults(calls)
    assert [number for number, _ in done] == list(range(50))
    assert len({where for _, where in done}) == 1
    assert set(answered_in) == {threading.get_ident()} != {done[0][1]}


@pytest_twisted.ensureDeferred
async def test_an_outcome_is_a_value_or_an_error(thread):
    assert await thread.run(divmod, 7, 2) == (3, 1)
    assert thread.wait_for(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await thread.run(divmod, 7, 0)
    with pytest.raises(ZeroDivisionError):
        thread.wait_for(divmod, 7, 0)


@pytest_twisted.ensureDeferred
async def test_one_that_is_cancelled_fails_at_once_and_goes_on_all_the_same(thread):
    gate, finished = threading.Event(), []
    call = thread.run(lambda: (gate.wait(10), finished.append(1)))
    call.cancel()
    with pytest.raises(CancelledError):
        await call
    gate.set()
    await until(lambda: finished)
    assert await thread.run(len, "abc") == 3


@pytest_twisted.ensureDeferred
async def test_what_was_asked_for_is_done_after_it_is_closed_and_nothing_more(thread):
    call = thread.run(len, "abc")
    thread.close()
    assert await call == 3
    with pytest.raises(RuntimeError):
        await thread.run(len, "abc")


def test_it_does_not_keep_a_process_from_ending():
    program = (
        "from twisted.internet import reactor\n"
        "from towerbus.log.one_thread import OneThread\n"
        "print(OneThread(reactor, 'x').wait_for(len, 'abc'))\n"
        "raise SystemExit('gone')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "3\n", "gone\n")
