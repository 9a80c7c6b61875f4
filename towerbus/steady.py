"""Timers that don't mind when somebody sets the clock."""

from __future__ import annotations

import time
from typing import Any


def steady(reactor: Any) -> None:
    """Let a reactor's timers go by a clock that never jumps.

    Twisted's go by the time of day: set back by an hour, nothing would be due for an hour; no ping, no canary and no
    heartbeat. What is scheduled already would be out of place, so this comes before everything.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic
