"""Takes turns with other processes at one listening socket, so that clients are spread evenly over them.

All that wait at a socket are woken for a connection, and the first to accept gets it: often the same one every time.
Here the one with more clients waits a little longer, so that the one with fewer is first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

STEP = 0.002
"""Seconds to wait, for each time that the number of clients doubles."""
LONGEST = 0.025
"""Seconds to wait, at the most. Whoever accepts then accepts many, if many wait."""


class Turns:
    """Makes a port wait for its turn before it accepts.

    Args:
        port: A listening port of the reactor's (`twisted.internet.tcp.Port`).
        load: How many clients this process has.
        reactor: Calls later.
    """

    def __init__(self, port: Any, load: Callable[[], int], reactor: Any) -> None:
        self._port = port
        self._load = load
        self._reactor = reactor
        self._waiting: IDelayedCall | None = None
        self._accept = port.doRead
        port.doRead = self._readable

    def stop(self) -> None:
        """Accept nothing more; call it before the port stops listening."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _readable(self) -> None:
        """Somebody knocks."""
        self._waiting = self._reactor.callLater(pause(self._load()), self._turn)
        self._port.stopReading()

    def _turn(self) -> None:
        self._waiting = None
        self._port.startReading()
        # Where another was first there is nothing to accept, and that is no fault.
        self._accept()


def pause(clients: int) -> float:
    """Seconds that a process with so many clients waits before it accepts."""
    return min(LONGEST, STEP * math.log2(1 + clients))
