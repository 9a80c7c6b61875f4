"""Emits over AMQP for threads and WSGI processes.

A process has one connection, which all its threads share (`publisher.py`). A fork leaves the parent's connection alone:
the child makes one of its own when it emits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from towerbus.amqp.lives import FAREWELL
from towerbus.amqp.plain import tls_options
from towerbus.amqp.publisher import Publisher
from towerbus.amqp.url import Broker
from towerbus.event import Event


class Shared:
    """What the threads of one process share: the publisher, or none before the first emit and after a close."""

    __slots__ = ("lock", "publisher")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.publisher: Publisher | None = None


class BlockingIntake:
    """Puts events in the broker's intake; may be shared by threads, and used on both sides of a fork.

    Args:
        broker: Where.
        timeout: Seconds that an emit may take, with all that is tried again.

    Raises:
        ConfigError: A certificate file can't be used.
    """

    def __init__(self, broker: Broker, timeout: float) -> None:
        if broker.tls:
            tls_options(broker)
        self._broker = broker
        self._timeout = timeout
        # By process, each with a lock of its own: one that another thread holds in the moment of a fork stays held in
        # the child.
        self._shared: dict[int, Shared] = {}

    def emit(self, events: Sequence[Event]) -> None:
        """Put events in, in this order.

        Raises:
            NotConfirmed: There was no confirmation in time; it carries the ids, and says whether any may be taken.
        """
        process = os.getpid()
        shared = self._shared.get(process) or self._shared.setdefault(process, Shared())
        while True:
            with shared.lock:
                publisher = shared.publisher = shared.publisher or Publisher(self._broker, self)
            if publisher.emit(events, self._timeout):
                return
            with shared.lock:
                # Another thread may have replaced it already.
                if shared.publisher is publisher:
                    shared.publisher = None

    def close(self) -> None:
        """Publish what waits, and let go of the connection, in bounded time. An emit makes a new one."""
        shared = self._shared.get(os.getpid())
        if shared is None:
            return
        with shared.lock:
            publisher, shared.publisher = shared.publisher, None
        if publisher is not None:
            publisher.close()
            publisher.join(FAREWELL)
