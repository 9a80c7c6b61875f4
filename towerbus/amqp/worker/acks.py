"""Acknowledgements, many in one.

Each is an entry in the intake's Raft log: it is written, and synced, like a message. So they wait a moment for those
that follow. What was ordered and not acknowledged when a worker ends is delivered again, and passed over then: its ids
are in the window, which has room for many times as many.
"""

from __future__ import annotations

from typing import Any

from towerbus.amqp.channel import Channel

MOST = 64
"""Messages that wait, at the most."""
PAUSE = 0.05
"""Seconds that they wait, at the most."""


class Acks:
    """The acknowledgements of one session.

    Args:
        channel: Where the intake is consumed.
        prefetch: Messages that may be delivered and not acknowledged: some must be left to be delivered meanwhile.
        clock: Calls later.
    """

    def __init__(self, channel: Channel, prefetch: int, clock: Any) -> None:
        self._channel = channel
        self._most = min(MOST, prefetch // 8)
        self._clock = clock
        self._done = self._through = 0
        self._due: Any = None

    def settled(self, through: int, *, at_once: bool = False) -> None:
        """A message, and all before it, need not be delivered again.

        Args:
            through: Its tag.
            at_once: Whether it would do harm if it were.
        """
        self._through = through
        if at_once or through - self._done >= self._most:
            self.flush()
        elif self._due is None:
            self._due = self._clock.callLater(PAUSE, self.flush)

    def flush(self) -> None:
        """Acknowledge what waits."""
        self.close()
        if self._through > self._done:
            self._channel.ack(self._through, multiple=True)
            self._done = self._through

    def close(self) -> None:
        """Acknowledge no more."""
        due, self._due = self._due, None
        if due is not None and due.active():
            due.cancel()
