"""Eager sends: the same bytes straight to many sockets.

There are two of `send_each`: in C (`_eager.c`), where a compiler was there when towerbus was installed, and in Python.
They do the same; the compiled one costs a third less for each client.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Protocol, TypeVar

from twisted.logger import Logger

try:
    from towerbus.wire import _eager
except ImportError:
    _eager = None  # type: ignore[assignment]

_log = Logger()


class Eager(Protocol):
    """What bytes may go to past the transport.

    Attributes:
        eager: The socket while nothing waits in the transport or anywhere else; None while something does, and where
            bytes must never go straight to it (TLS).
    """

    eager: socket.socket | None


O = TypeVar("O", bound=Eager)  # noqa: E741 - an outlet


class SendEach(Protocol):
    """What both loops are."""

    def __call__(self, outlets: Iterable[O], data: bytes, /) -> list[tuple[O, int]]:
        """Send: `send_each_in_python` says what there is to it."""


def send_each_in_python(outlets: Iterable[O], data: bytes, /) -> list[tuple[O, int]]:
    """Send the same bytes to each that is eager, without waiting for anybody.

    Nothing else is done, so that nobody joins or leaves while they are walked.

    Returns:
        Those that did not get all of it, each with the number of bytes that the kernel took: 0 also where it is not
        eager, and where its connection is gone, which its transport notices when it writes.
    """
    size = len(data)
    left: list[tuple[O, int]] = []
    for outlet in outlets:
        eager, sent = outlet.eager, 0
        if eager is not None:
            try:
                sent = eager.send(data)
            except OSError:
                sent = 0
        if sent != size:
            left.append((outlet, sent))
    return left


COMPILED = _eager is not None
"""Whether the C loop is there."""
send_each: SendEach = _eager.send_each if COMPILED else send_each_in_python
"""The faster of those that are there."""


def say_which() -> None:
    """Log it where it is not the C loop: all works, and costs more."""
    if not COMPILED:
        _log.info("send_loop: Python's; with a C compiler at hand when towerbus is installed, sending costs less CPU")
