"""Timers stay right when the clock of the machine is set."""

import subprocess
import sys

import pytest
from support.set_back import library
from twisted.internet import selectreactor

from towerbus.steady import steady

PROGRAM = """
import pathlib, time
from twisted.internet import reactor
{steady}
begun = time.monotonic()
def turn(count):
    if count == 8:
        print("eight turns")
        reactor.stop()
    else:
        reactor.callLater(0.05, turn, count + 1)
    if count == 3:
        pathlib.Path("set-back").touch()
reactor.callLater(0, turn, 0)
import threading
enough = threading.Timer({patience}, lambda: reactor.callFromThread(reactor.stop))
enough.daemon = True
enough.start()
before = time.time()
reactor.run()
assert before - time.time() > 3000, "the clock was not set back"
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return library(tmp_path_factory.mktemp("shim"))


def run(directory, shim, steady, patience):
    program = PROGRAM.format(
        steady="from towerbus.steady import steady; steady(reactor)" if steady else "", patience=patience
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=directory, env={"LD_PRELOAD": shim}, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_timers_go_on_when_the_clock_is_set_back(tmp_path, shim):
    assert run(tmp_path, shim, steady=True, patience=20) == "eight turns\n"


def test_without_it_they_stop(tmp_path, shim):
    """Else it were of no use, and this test of the other were none."""
    assert run(tmp_path, shim, steady=False, patience=2) == ""


def test_what_is_scheduled_already_is_left_alone():
    reactor = selectreactor.SelectReactor()
    reactor.callLater(5, lambda: None)
    before = reactor.seconds
    steady(reactor)
    assert reactor.seconds is before
