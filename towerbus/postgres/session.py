"""A session with PostgreSQL, off the reactor's thread, in which no call takes longer than it may.

psycopg blocks, so each call is made in a thread of its own, one after the other. A call that has no answer in time (a
frozen server, a cut network) is ended from the reactor's thread by shutting down the socket under it: libpq then fails
at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from towerbus.errors import ConfigError, TowerbusError
from towerbus.log.one_thread import OneThread

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg import Connection

T = TypeVar("T")
CONNECT_TIMEOUT = 10
"""Seconds to connect."""
ANSWER_TIMEOUT = 30.0
"""Seconds for a call, with all of its statements."""
DEFAULTS: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "application_name": "towerbus",
    "tcp_user_timeout": 30_000,
}
SETTINGS = "SET statement_timeout = '20s'; SET lock_timeout = '10s'; SET client_encoding = 'UTF8'"


class DatabaseTrouble(TowerbusError):
    """PostgreSQL can't be reached, has ended the session, or refuses a statement; the text says which."""


def check_url(url: str) -> None:
    """Check a connection string, and that psycopg is there.

    Raises:
        ConfigError: It is none, or psycopg is missing.
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ConfigError(f"PostgreSQL needs psycopg: pip install 'towerbus[postgres]' ({error})") from error
    try:
        conninfo_to_dict(url)
    except ProgrammingError as error:
        # libpq's text may quote the string, and with it the password.
        raise ConfigError(
            "is no connection string of PostgreSQL; wanted is postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from error


@implementer(IReadDescriptor)
class Session:
    """One session. It is connected once, and never again when it has ended: make another.

    Args:
        reactor: Tells the time, and watches the socket.
        url: What libpq takes: a URL, or `key=value` pairs. What it does not say comes from libpq's own sources
            (`PGPASSWORD`, `~/.pgpass`, a service file).
        name: The thread's, and the application's name for the server where the URL has none.
        timeout: Seconds for a call.
    """

    def __init__(self, reactor: Any, url: str, name: str, timeout: float = ANSWER_TIMEOUT) -> None:
        self._reactor = reactor
        self._url = url
        self._name = name
        self._timeout = timeout
        self._thread = OneThread(reactor, name)
        self._connection: Connection[Any] | None = None
        self._socket: socket.socket | None = None
        self._ring: Callable[[], None] | None = None
        self._late = False
        self.rung = False
        """Whether a notification has come; set to False by whoever has looked."""

    def connect(self, *channels: str) -> Deferred[None]:
        """Connect, and listen on channels.

        Returns:
            A Deferred that fails with `DatabaseTrouble`.
        """
        return self._bounded(lambda: self._connect(channels))

    def run(self, function: Callable[[Connection[Any]], T]) -> Deferred[T]:
        """Call a function with the connection, in the thread; each statement in it is a transaction of its own.

        Returns:
            What it returns. It fails with `DatabaseTrouble`; whatever the trouble was, the session is then best closed.
        """

        def call() -> T:
            if self._connection is None:
                raise DatabaseTrouble("not connected")
            return function(self._connection)

        return self._bounded(call)

    def watch(self, ring: Callable[[], None]) -> None:
        """Call `ring` once, in the reactor's thread, when there is a notification, or the server ends the session.

        Between `watch` and that no call may be made; `unwatch` ends it.
        """
        self._ring = ring
        self._reactor.addReader(self)

    def unwatch(self) -> None:
        """Watch no longer."""
        if self._ring is not None:
            self._ring = None
            self._reactor.removeReader(self)

    def close(self) -> Deferred[None]:
        """End the session; a call that is under way is cut off.

        Returns:
            A Deferred that fires when the connection is closed.
        """
        self.unwatch()
        self._sever()
        closed = self._thread.run(self._close)
        self._thread.close()
        return closed

    # IReadDescriptor

    def fileno(self) -> int:
        """The socket's, for the reactor."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For Twisted's log."""
        return self._name

    def doRead(self) -> None:
        """There is something to be read; the next call in the thread reads it."""
        ring = self._ring
        self.unwatch()
        if ring is not None:
            ring()

    def connectionLost(self, _: Any = None) -> None:
        """The reactor can't watch it any more, or ends."""
        self.doRead()

    @inlineCallbacks
    def _bounded(self, function: Callable[[], T]) -> Generator[Deferred[Any], Any, T]:
        from psycopg import Error

        timer = self._reactor.callLater(self._timeout, self._too_late)
        try:
            outcome: T = yield self._thread.run(function)
        except Error as error:
            late = f"no answer within {self._timeout:g} s" if self._late else ""
            raise DatabaseTrouble(late or " ".join(str(error).split()) or type(error).__name__) from error
        finally:
            if timer.active():
                timer.cancel()
        return outcome

    def _too_late(self) -> None:
        self._late = True
        self._sever()

    def _sever(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it may be shut down already
                self._socket.shutdown(socket.SHUT_RDWR)

    # In the thread

    def _connect(self, channels: tuple[str, ...]) -> None:
        import psycopg
        from psycopg import sql
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        defaults = DEFAULTS | {"application_name": self._name}
        given: dict[str, Any] = conninfo_to_dict(self._url)
        connection = psycopg.connect(make_conninfo("", **(defaults | given)), autocommit=True)
        # A copy: it stays ours, whatever becomes of the number of psycopg's.
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._connection = connection
        connection.execute(SETTINGS)
        connection.add_notify_handler(self._notified)
        for channel in channels:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def _notified(self, _: object) -> None:
        self.rung = True

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        held, self._socket = self._socket, None
        if held is not None:
            held.close()
