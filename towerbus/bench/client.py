"""One client of the bench: its connection, and what the server says on it."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any

import msgspec

from towerbus.bench import frames
from towerbus.bench.ledger import Faults, Ledger
from towerbus.bench.loads import Role
from towerbus.bench.schedule import Chunk, Feed, Schedule
from towerbus.bench.target import Target, check_answer
from towerbus.errors import TowerbusError

SIZE = 65536
"""Bytes that are read at once."""
NOTHING: dict[int, Chunk] = {}
"""No piece of any stream is known: what comes has to be read."""
MAX_HEAD = 16384
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: a close resets the connection, and leaves no TIME_WAIT behind: its port is wanted again."""
_HEAD_END = b"\r\n\r\n"


class State(IntEnum):
    """How far a client is."""

    OUT = 0
    CONNECTING = 1
    SHAKING = 2
    GREETING = 3
    OPEN = 4


class Client(Ledger):
    """One client, over all its connections.

    Args:
        number: Its number, from 0.
        role: What it does.
        feed: What it wants.
        faults: Where what is untrue is noted.

    Attributes:
        number: Its number.
        role: What it does.
        state: How far it is.
        recv: Reads what has come, as `socket.recv`; None when there is nothing for anyone but itself.
        chunks: What its feed remembers, while nothing but whole events is expected; else nothing.
        part: The beginning of a frame whose rest has not come.
        position: The newest that it was told (`towerbus.v1`).
        unproven: It was told that with no event: the next one must be looked at, and not only compared.
        awaited: What it has asked for, until the reply.
        current: The topics of the last reply on this connection.
        has_subscribed: Whether it ever got a reply.
        excused: It was closed as the load means it to be: it gets nothing more.
        step: How often it has replaced its set.
        walking: It has asked for its next set.
        since: When it was cut, until it has caught up; 0 otherwise.
    """

    __slots__ = (
        "_accept", "_socket", "awaited", "chunks", "current", "excused",
        "has_subscribed", "number", "part", "position", "recv", "role", "since", "state", "step",
        "unproven", "walking",
    )  # fmt: skip

    def __init__(self, number: int, role: Role, feed: Feed, faults: Faults) -> None:
        super().__init__(f"client {number}", feed, faults)
        self.number = number
        self.role = role
        self.state = State.OUT
        self.recv: Callable[[int], bytes | None] = _nothing
        self.chunks = NOTHING
        self.part = b""
        self.position: str | None = None
        self.unproven = False
        self.awaited: Feed | None = None
        self.current: frozenset[str] = frozenset()
        self.has_subscribed = False
        self.excused = False
        self.step = 0
        self.walking = False
        self.since = 0.0
        self._accept = b""
        self._socket: socket.socket | None = None

    def connect(self, target: Target) -> int:
        """Begin to connect.

        Returns:
            The descriptor to be watched, for writing at first.
        """
        made = target.socket(self.number, slow=self.role is Role.SLOW)
        self._socket = made
        self.state = State.CONNECTING
        self.part, self.chunks, self.current, self.awaited = b"", NOTHING, frozenset(), None
        self.recv = _nothing
        return made.fileno()

    def go_on_connecting(self, target: Target) -> bool:
        """The connection is made, or TLS goes on.

        Returns:
            Whether the handshake is under way now; else it is TLS that goes on.

        Raises:
            OSError: The server can't be reached, or its certificate is not right.
        """
        made = self._socket
        if made is None:
            return False
        if code := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        if target.tls is not None:
            if not isinstance(made, ssl.SSLSocket):
                host = target.host.strip("[]")
                made = target.tls.wrap_socket(made, server_hostname=host, do_handshake_on_connect=False)
                self._socket = made
            try:
                made.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
        request, self._accept = target.request()
        made.send(request)
        self.state = State.SHAKING
        self.recv = self._recv_tls if isinstance(made, ssl.SSLSocket) else made.recv
        return True

    def take_head(self, data: bytes, target: Target) -> bytes | None:
        """Take the answer to the handshake.

        Returns:
            What stands behind it; None where it is not all there.

        Raises:
            TowerbusError: It is not one.
        """
        data = self.part + data
        head, end, rest = data.partition(_HEAD_END)
        if not end:
            if len(data) > MAX_HEAD:
                raise TowerbusError("the answer to the handshake has no end: is the URL that of a WebSocket?")
            self.part = data
            return None
        check_answer(head, self._accept, target.subprotocol, compression=target.compression)
        self.part = b""
        self.state = State.GREETING
        return rest

    @property
    def was_in(self) -> bool:
        """Whether the server has let it in, now or before."""
        return self.state is State.OPEN or self.since != 0

    def told(self, position: str) -> None:
        """It was told a position, and with no event."""
        self.unproven = self.unproven or position != self.position
        self.position = position

    def ask(self, schedule: Schedule, feed: Feed, *, since: bool = False) -> None:
        """Ask for a set of topics.

        Args:
            schedule: Which topics there are.
            feed: The set.
            since: Also for what it has missed.
        """
        groups: dict[str, list[str]] = {}
        for index in feed.topics:
            topic = schedule.topics[index]
            groups.setdefault(topic.group, []).append(topic.type)
        message: dict[str, Any] = {"groups": groups}
        if since:
            message["since"] = self.position
        self.awaited = feed
        self.chunks = NOTHING
        self.send(frames.TEXT, msgspec.json.encode(message))

    def send(self, opcode: int, payload: bytes) -> None:
        """Send a frame. What is as small as this goes at once, or the connection is lost, which is then read."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(frames.masked(opcode, payload))

    @property
    def descriptor(self) -> int:
        """Its connection's; -1 without one."""
        return -1 if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Let go of the connection, at once."""
        made, self._socket = self._socket, None
        self.state, self.recv, self.chunks, self.part = State.OUT, _nothing, NOTHING, b""
        if made is None:
            return
        with suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        made.close()

    def read_slowly(self, size: int) -> bytes | None:
        """Read so many bytes; None where nothing is there."""
        try:
            return self._socket.recv(size) if self._socket is not None else None
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError:
            return b""

    def _recv_tls(self, size: int) -> bytes | None:
        """Read all that is there: what TLS holds would not wake the loop again."""
        made, pieces = self._socket, []
        if made is None:
            return None
        try:
            while piece := made.recv(size):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            if not pieces:
                return None
        except OSError:
            if not pieces:
                raise
        return b"".join(pieces)


def names(schedule: Schedule, topics: Sequence[int]) -> frozenset[str]:
    """The joined names of topics, as replies have them."""
    return frozenset(schedule.topics[index].name for index in topics)


def _nothing(_: int) -> bytes | None:
    return None


def said(error: OSError) -> str:
    """An error of the system's, for a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}; give --ca FILE, or --insecure"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{error.strerror}: there are no more ports; give more addresses with --source"
    return error.strerror or str(error)
