"""The broker's first byte: a peer that speaks something else is known by it, where pika would wait for more."""

from __future__ import annotations

from typing import Any

from towerbus.amqp.errors import NotAmqp

_FIRST = (b"\x01", b"A")
"""A method frame, or the header with which a broker names the version that it speaks (AMQP 0-9-1, section 4.2.2)."""


def expect_amqp(connection: Any) -> None:
    """Have a connection of pika's, of whatever adapter, give up a peer that is no broker with `NotAmqp`."""
    take = connection._on_data_available  # noqa: SLF001

    def first(data: bytes) -> None:
        connection._on_data_available = take  # noqa: SLF001
        if data[:1] in _FIRST:
            take(data)
        else:
            text = f"no AMQP 0-9-1 is spoken there ({data[:20]!r}): is the port right, and is it TLS?"
            connection._terminate_stream(NotAmqp(text))  # noqa: SLF001

    connection._on_data_available = first  # noqa: SLF001
