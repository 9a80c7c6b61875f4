"""What towerbus knows of the insides of Twisted's transports: the way straight to the kernel."""

from __future__ import annotations

from contextlib import suppress
from socket import socket
from typing import Any

from twisted.internet import tcp


def eager_socket(transport: Any) -> socket | None:
    """The way straight to the kernel, past the transport's own buffers; None where there is none (TLS, a lost one).

    Whoever uses it must know that the transport holds nothing.
    """
    if isinstance(transport, tcp.Connection) and not getattr(transport, "TLS", False):
        return getattr(transport, "socket", None)
    return None


def write_now(transport: Any, data: bytes) -> None:
    """Write at once, if the transport holds nothing; what the kernel does not take, the transport does.

    `transport.write` would wait for the next turn of the reactor, and be told by the kernel that it may write, twice.
    """
    direct = eager_socket(transport)
    if direct is not None and not _holds(transport) and transport.connected and not transport.disconnecting:
        # Also what no trying again mends: the transport finds out, and says so.
        with suppress(OSError):
            data = data[direct.send(data) :]
    if data:
        transport.write(data)


def _holds(transport: Any) -> bool:
    return bool(transport.dataBuffer or transport._tempDataBuffer)  # noqa: SLF001
