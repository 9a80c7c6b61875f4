"""What the emitters' connections do when their process forks, and when it ends."""

from __future__ import annotations

import atexit
import codecs
import os
import time
import weakref
from typing import Protocol

FORKS_WITHIN = 1.0
"""Seconds that a fork waits for a connection that is being made, at the most."""
FAREWELL = 2.0
"""Seconds for an end of ours."""


class Life(Protocol):
    """A connection with its thread."""

    def await_settled(self, seconds: float) -> None:
        """Wait until it is not about to connect, or the time is over."""

    def forsake(self) -> None:
        """Let go of it in a child of its process."""

    def close(self) -> None:
        """Begin to end it."""

    def join(self, seconds: float) -> None:
        """Wait until it has ended, or the time is over."""


_lives: weakref.WeakSet[Life] = weakref.WeakSet()


def add(life: Life) -> None:
    """Remember one, for as long as somebody else does."""
    _lives.add(life)


def _forking() -> None:
    """Let nobody be in the middle of a look-up of names: the C library's locks would be held in the child for ever."""
    until = time.monotonic() + FORKS_WITHIN
    for life in list(_lives):
        life.await_settled(max(0.0, until - time.monotonic()))


def _forked() -> None:
    for life in list(_lives):
        life.forsake()
    _lives.clear()


def _exiting() -> None:
    """Say goodbye to the broker; what was confirmed is there, and nobody waits for anything any more."""
    lives = list(_lives)
    until = time.monotonic() + FAREWELL
    for life in lives:
        life.close()
    for life in lives:
        life.join(until - time.monotonic())


# Python imports it when a name is first looked up; a child forked in that moment would never have it.
codecs.lookup("idna")
os.register_at_fork(before=_forking, after_in_child=_forked)
atexit.register(_exiting)
