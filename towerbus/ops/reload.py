"""What is read again while the process runs: on SIGHUP everything, and certificates whenever their files change.

A file that can't be used leaves what was read before in force, and is told of in the log; no connection is dropped.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from towerbus.errors import ConfigError
from towerbus.ops.notify import Notify

LOOKS = 2.0
"""Seconds between two looks at whether a file has changed."""
_log = Logger()


class Part(NamedTuple):
    """Something that can be read again.

    Attributes:
        read: Reads it; returns what was read, in words, or raises ConfigError.
        changed: Tells whether it should be read although nobody asked; None where that is never so.
    """

    read: Callable[[], str]
    changed: Callable[[], bool] | None = None


class Reload(Service):
    """Reads the parts again when it is asked to.

    Args:
        reactor: Calls later, and is stopped where the terminal went away.
        notify: The way to the service manager.
        parts: What is read.

    Attributes:
        done: How often a part was read again.
        refused: How often one could not be used.
        unusable: Why a part could not be used when it was read last, for each of which that is so.
    """

    def __init__(self, reactor: Any, notify: Notify, parts: Sequence[Part]) -> None:
        self.done = self.refused = 0
        self.unusable: dict[Part, str] = {}
        self._reactor = reactor
        self._notify = notify
        self._parts = list(parts)
        self._before: Any = None
        self._terminal = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def add(self, part: Part) -> None:
        """Read one more; before it is started."""
        self._parts.append(part)

    def startService(self) -> None:
        """Listen to SIGHUP, and look at files."""
        super().startService()
        self._terminal = sys.__stdin__ is not None and not sys.__stdin__.closed and sys.__stdin__.isatty()
        self._before = signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._asked))
        if any(part.changed is not None for part in self._parts):
            self._loop.start(LOOKS, now=False).addErrback(_unexpected)

    def stopService(self) -> None:
        """Do neither any more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        signal.signal(signal.SIGHUP, self._before)

    def reload(self) -> None:
        """Read all parts again."""
        self._notify.reloading()
        _log.info("reload_begun")
        for part in self._parts:
            self._read(part)
        self._notify.reloaded()

    def _asked(self) -> None:
        if self._terminal and _hung_up():
            _log.info("terminal_gone: stopping")
            with suppress(ReactorNotRunning):
                self._reactor.stop()
        elif self.running:
            self.reload()

    def _look(self) -> None:
        for part in self._parts:
            if part.changed is not None and part.changed():
                self._read(part)

    def _read(self, part: Part) -> None:
        try:
            words = part.read()
        except ConfigError as error:
            self.refused += 1
            self.unusable[part] = str(error)
            _log.error("reload_refused: {reason}; what was read before stays in force", reason=str(error))
        except Exception:  # noqa: BLE001 - the other parts are to be read all the same
            self.refused += 1
            self.unusable[part] = "a fault: see the log"
            _log.failure("reload_failed")
        else:
            self.done += 1
            self.unusable.pop(part, None)
            _log.info("reloaded: {what}", what=words)


def _hung_up() -> bool:
    """Whether the terminal that the process was started on is gone: that sends SIGHUP too."""
    try:
        termios.tcgetattr(0)
        return os.tcgetpgrp(0) < 0
    except (OSError, termios.error):
        return True


def _unexpected(failure: Failure) -> None:
    _log.failure("reload_failed", failure)
