"""The sending side of one connection: eager while the kernel takes everything, through a bounded outbox when not.

Everything that goes to the client goes through `write`, so that replies, pings, closes and events keep one order. Bytes
go straight to the socket if, and only if, nothing waits in the transport: otherwise the stream would be corrupted. What
the kernel does not take goes to the transport at once, and from then on everything waits in the outbox, from which the
transport pulls (Twisted's pull producer) until both are empty.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from towerbus.outbox import Outbox
from towerbus.transports import eager_socket
from towerbus.wire import eager

CHUNK = 64 * 1024
"""Bytes that are handed to the transport at a time: what it holds beside the outbox."""


@implementer(IPullProducer)
class Outlet:
    """What may be written to while the connection lasts.

    Args:
        transport: The connection's transport.
        limit: Bytes that may wait for the client beyond what the kernel and the transport hold.
        overflowed: Called once when more than that would have to wait; nothing is kept of what did not fit.
    """

    __slots__ = ("_limit", "_outbox", "_overflowed", "_transport", "eager")

    def __init__(self, transport: Any, limit: int, overflowed: Callable[[], None]) -> None:
        self._transport = transport
        self._limit = limit
        self._overflowed = overflowed
        self._outbox: Outbox | None = None
        self.eager = eager_socket(transport)

    @property
    def waiting(self) -> int:
        """Bytes that wait in the outbox."""
        return 0 if self._outbox is None else self._outbox.size

    def write(self, data: bytes) -> None:
        """Send whole frames after everything that was written before."""
        sent = 0
        if self.eager is not None:
            try:
                sent = self.eager.send(data)
            except OSError:
                # The kernel is full; or the connection is gone, which the transport notices when it writes.
                sent = 0
        if sent != len(data) and not self._wait(data[sent:]):
            self._overflowed()

    def hold(self) -> Callable[[], None]:
        """Gather what is written until the returned function is called, so that it is one send."""
        if self.eager is None:
            return _nothing
        held = self._outbox = Outbox(sys.maxsize)
        self.eager = None

        def release() -> None:
            if self._outbox is held:
                self._go_eager()
                if held:
                    self.write(held.take(held.size))

        return release

    def close_soon(self) -> None:
        """Drop what waits, at a frame's boundary: a last frame may be written, and then the end."""
        if self._outbox is not None:
            self._outbox.clear()

    def closed(self) -> None:
        """Let go of the connection: from now on writing does nothing."""
        self.eager = None
        self._outbox = _NOWHERE
        self._transport = _GONE
        self._overflowed = _nothing

    def resumeProducing(self) -> None:
        """The transport holds nothing: give it more, or go back to sending eagerly."""
        outbox = self._outbox
        if outbox:
            self._transport.write(outbox.take(CHUNK))
        elif outbox is not None:
            self._go_eager()
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is gone; `closed` follows."""

    def _wait(self, rest: bytes) -> bool:
        """Let bytes wait behind all others; False when they are too many, and nothing is kept of them.

        A TCP transport pulls at once when waiting begins, so that the rest of a cut frame never stays in the outbox.
        """
        if self._outbox is not None:
            return self._outbox.offer(rest)
        self.eager = None
        self._outbox = Outbox(self._limit)
        self._outbox.offer(rest)
        self._transport.registerProducer(self, False)
        return True

    def _go_eager(self) -> None:
        """Nothing waits any more."""
        self._outbox = None
        self.eager = eager_socket(self._transport)


class _Gone:
    """The transport of a closed connection: takes everything and does nothing."""

    def write(self, data: bytes) -> None:
        """Nobody is there."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Nobody is there."""

    def unregisterProducer(self) -> None:
        """Nobody is there."""


class _Nowhere(Outbox):
    """The outbox of a closed connection: takes everything and keeps nothing."""

    def offer(self, data: bytes) -> bool:  # noqa: ARG002
        """Nobody is there."""
        return True


_GONE = _Gone()
_NOWHERE = _Nowhere(0)


def broadcast(outlets: Iterable[Outlet], data: bytes) -> None:
    """Write the same bytes to many: what `Outlet.write` does, without a call for each while the kernel takes all.

    They may come and go by what follows: it follows when all have been walked. And every cut frame's rest is where it
    must be before anything else is done, whatever an overflow leads to.
    """
    left = eager.send_each(outlets, data)
    for outlet in [outlet for outlet, sent in left if not outlet._wait(data[sent:])]:  # noqa: SLF001 - the same room
        outlet._overflowed()  # noqa: SLF001


def _nothing() -> None:
    """Nobody is there to be told."""
