"""Deadlines of very many connections on one timer: a wheel of coarse ticks.

A connection has one deadline at a time: for the handshake and the authentication, then from ping to ping, then for the
closing. Setting one costs a dictionary entry, where a timer of its own costs a heap operation and half a kilobyte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()


class Mortal(Protocol):
    """What has deadlines."""

    def due(self) -> None:
        """The deadline has come."""


class Deadlines(Service):
    """The wheel, as a service.

    Args:
        clock: Calls later (IReactorTime).
        seconds: Tells the time, in seconds; one that never jumps.
        tick: Seconds; a deadline comes up to one tick late, never early.
    """

    def __init__(self, clock: Any, seconds: Callable[[], float], tick: float = 1.0) -> None:
        self._seconds = seconds
        self._tick = tick
        self._slots: dict[int, set[Mortal]] = {}
        self._turned = self._now()
        self._loop = LoopingCall(self.turn)
        self._loop.clock = clock

    def startService(self) -> None:
        """Begin to turn."""
        super().startService()
        self._turned = self._now()
        self._loop.start(self._tick, now=False)

    def stopService(self) -> None:
        """Stop turning; no deadline comes any more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def set(self, mortal: Mortal, seconds: float) -> int:
        """Give a deadline; the mark it gets is wanted to `clear` it."""
        mark = self._now() + max(1, -int(-seconds // self._tick)) + 1
        self._slots.setdefault(mark, set()).add(mortal)
        return mark

    def clear(self, mortal: Mortal, mark: int) -> None:
        """Take a deadline back; one that has come already is no matter."""
        slot = self._slots.get(mark)
        if slot is not None:
            slot.discard(mortal)
            if not slot:
                del self._slots[mark]

    def turn(self) -> None:
        """Let the deadlines come that are due by now."""
        now = self._now()
        for mark in range(self._turned + 1, now + 1) if now - self._turned < len(self._slots) else sorted(self._slots):
            if mark > now:
                break
            for mortal in self._slots.pop(mark, ()):
                try:
                    mortal.due()
                except Exception:  # noqa: BLE001 - one connection's fault must not stop the others' deadlines
                    _log.failure("deadline_failed")
        self._turned = now

    def _now(self) -> int:
        return int(self._seconds() // self._tick)
