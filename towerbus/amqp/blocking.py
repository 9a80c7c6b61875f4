"""Emits over AMQP for threads and WSGI processes.

A process has one connection, which all its threads share (`publisher.py`). A fork leaves the parent's connection alone:
the child makes one of its own when it emits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from towerbus.amqp.lives import FAREWELL
from towerbus.amqp.plain import tls_options
from towerbus.amqp.publisher import Publisher
from towerbus.amqp.url import Broker
from towerbus.event import Event


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
        # By process. There is no lock around it: one that another thread holds in the moment of a fork would be held
        # for ever in the child.
        self._publishers: dict[int, Publisher] = {}

    def emit(self, events: Sequence[Event]) -> None:
        """Put events in, in this order.

        Raises:
            NotConfirmed: There was no confirmation in time; it carries the ids, and says whether any may be taken.
        """
        process = os.getpid()
        while True:
            publisher = self._publishers.get(process)
            if publisher is None:
                publisher = self._publishers.setdefault(process, Publisher(self._broker, self))
            if publisher.emit(events, self._timeout):
                return
            self._publishers.pop(process, None)

    def close(self) -> None:
        """Publish what waits, and let go of the connection, in bounded time. An emit makes a new one."""
        publisher = self._publishers.pop(os.getpid(), None)
        if publisher is not None:
            publisher.close()
            publisher.join(FAREWELL)
