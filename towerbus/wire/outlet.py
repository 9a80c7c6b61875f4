"""The sending side of one connection: eager while the kernel takes everything, through a bounded outbox when not.

Everything that goes to the client goes through `write`, so that replies, pings, closes and events keep one order. Bytes
go straight to the socket if, and only if, nothing waits in the transport: otherwise the stream would be corrupted. What
the kernel does not take goes to the transport at once, and from then on everything waits in the outbox, from which the
transport pulls (Twisted's pull producer) until both are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from towerbus.outbox import Outbox
from towerbus.wire.insides import eager_send

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

    __slots__ = ("_limit", "_outbox", "_overflowed", "_send", "_transport")

    def __init__(self, transport: Any, limit: int, overflowed: Callable[[], None]) -> None:
        self._transport = transport
        self._limit = limit
        self._overflowed = overflowed
        self._outbox: Outbox | None = None
        self._send = eager_send(transport) or _takes_nothing

    @property
    def waiting(self) -> int:
        """Bytes that wait in the outbox."""
        return 0 if self._outbox is None else self._outbox.size

    def write(self, data: bytes) -> None:
        """Send whole frames after everything that was written before."""
        if self._outbox is not None:
            if not self._outbox.offer(data):
                self._overflowed()
            return
        try:
            sent = self._send(data)
        except OSError:
            # The kernel is full; or the connection is gone, which the transport notices when it writes.
            sent = 0
        if sent != len(data):
            self._wait(data[sent:])

    def hold(self) -> Callable[[], None]:
        """Gather what is written until the returned function is called, so that it is one send."""
        send = self._send
        if send is _takes_nothing or self._outbox is not None:
            return _nothing
        held: list[bytes] = []

        def keep(data: bytes) -> int:
            held.append(data)
            return len(data)

        def release() -> None:
            if self._send is keep:
                self._send = send
                if held:
                    self.write(b"".join(held))

        self._send = keep
        return release

    def close_soon(self) -> None:
        """Drop what waits, at a frame's boundary: a last frame may be written, and then the end."""
        if self._outbox is not None:
            self._outbox.clear()

    def closed(self) -> None:
        """Let go of the connection: from now on writing does nothing."""
        self._outbox = Outbox(0)
        self._send = _takes_nothing
        self._transport = _GONE
        self._overflowed = _nothing

    def resumeProducing(self) -> None:
        """The transport holds nothing: give it more, or go back to sending eagerly."""
        outbox = self._outbox
        if outbox:
            self._transport.write(outbox.take(CHUNK))
        elif outbox is not None:
            self._outbox = None
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is gone; `closed` follows."""

    def _wait(self, rest: bytes) -> None:
        """Begin to wait. A TCP transport pulls at once, so that the rest of a cut frame never waits in the outbox."""
        self._outbox = Outbox(self._limit)
        self._outbox.offer(rest)
        self._transport.registerProducer(self, False)


class _Gone:
    """The transport of a closed connection: takes everything and does nothing."""

    def write(self, data: bytes) -> None:
        """Nobody is there."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Nobody is there."""

    def unregisterProducer(self) -> None:
        """Nobody is there."""


_GONE = _Gone()


def broadcast(outlets: Iterable[Outlet], data: bytes) -> None:
    """Write the same bytes to many: what `Outlet.write` does, without a call for each while the kernel takes all."""
    size = len(data)
    for outlet in outlets:
        if outlet._outbox is not None:  # noqa: SLF001 - the same room
            outlet.write(data)
            continue
        try:
            sent = outlet._send(data)  # noqa: SLF001
        except OSError:
            sent = 0
        if sent != size:
            outlet._wait(data[sent:])  # noqa: SLF001


def _takes_nothing(data: bytes) -> int:  # noqa: ARG001
    """The way to the kernel where there is none: everything goes through the transport."""
    return 0


def _nothing() -> None:
    """Nobody is there to be told."""
