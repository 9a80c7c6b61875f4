"""SIGINT and SIGTERM: a run that they end still says what it has found."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_ENDING = (signal.SIGINT, signal.SIGTERM)
_ONE = 0.5
"""Seconds in which several signals are one: timeout(1) sends it to the process and to its group."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended what is going on. No `Exception`: nothing on the way takes it for a fault of its own."""


class Interrupts:
    """Takes the two signals while it is entered; in the main thread only.

    The first one ends what may be ended, see `ending`, or is kept until then; the second one ends everything.

    Attributes:
        signal: Which one came; None before.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._came = 0.0
        self._may_end = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def name(self) -> str:
        """What came, for a person; empty before."""
        return "" if self.signal is None else self.signal.name

    @property
    def code(self) -> int:
        """The exit code, as shells have it: 128 and the signal's number; 0 before."""
        return 0 if self.signal is None else 128 + self.signal

    @contextmanager
    def ending(self) -> Iterator[None]:
        """What is done inside is ended at once.

        Raises:
            Interrupted: A signal has come, inside or before.
        """
        self._may_end = True
        try:
            if self.signal is not None:
                raise Interrupted
            yield
        finally:
            self._may_end = False

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            if time.monotonic() - self._came < _ONE:
                return
            raise KeyboardInterrupt
        self.signal, self._came = signal.Signals(number), time.monotonic()
        if self._may_end:
            raise Interrupted

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in _ENDING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
