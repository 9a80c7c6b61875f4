"""The spool: events wait on the disk until the bus has confirmed them. An intake whose confirmation means: durable.

What is given in while the disk is busy is written in one transaction, so that its cost is shared. All of it is done in
a thread of its own, in order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from towerbus.bridge.spool_file import OVERHEAD, Held, Spooled, SpoolFile, SpoolGone
from towerbus.errors import BusUnavailable, NoRoom, NotConfirmed, TowerbusError
from towerbus.event import Event
from towerbus.intake.interface import IIntake
from towerbus.log.one_thread import OneThread
from towerbus.log.sqlite_file import in_doubt, meaning

_MENDS = {
    sqlite3.SQLITE_NOTADB: "it is no database; move it away, and a new one is made",
    sqlite3.SQLITE_CORRUPT: "it is damaged; move it away, and a new one is made (sqlite3 .recover shows what waited)",
}
"""What to do about a file, where that is not what one does about the log's."""


class _Call(NamedTuple):
    events: Sequence[Event]
    size: int
    done: Deferred[None]


@implementer(IIntake)
class Spool:
    """Made by `open_spool`.

    Args:
        file: The database.
        thread: Where it is used.
        held: How much it holds.
        max_bytes: Bytes that it may hold, at the most.
    """

    def __init__(self, file: SpoolFile, thread: OneThread, held: Held, max_bytes: int) -> None:
        self._file = file
        self._thread = thread
        self._max_bytes = max_bytes
        self._calls: list[_Call] = []
        self._pending = 0
        self._writing = self._closed = False
        self._gone = ""
        self._news: Deferred[None] | None = None
        self.events, self.bytes = held
        self.refused = 0
        """Events that found no room."""
        self.trouble = ""
        """Why it takes nothing now; empty where it does."""
        self.on_trouble: Callable[[str], object] = _nothing
        """Called when `trouble` has changed."""

    def emit(self, events: Sequence[Event]) -> Deferred[None]:
        """Put events in, in this order. Fires when they are on the disk.

        Returns:
            A Deferred that fails with `BusUnavailable` where it is full, or can't be written.
        """
        if not events:
            return succeed(None)
        size = sum(len(event.payload) + OVERHEAD for event in events)
        if self._closed:
            return fail(BusUnavailable("the bridge is stopping", _ids(events)))
        if self.bytes + self._pending + size > self._max_bytes:
            self.refused += len(events)
            text = f"the spool is full: {self.bytes + self._pending} of {self._max_bytes} bytes wait for the bus"
            self._troubled(text)
            return fail(NoRoom(f"{text}; come back later", _ids(events)))
        call = _Call(events, size, Deferred())
        self._calls.append(call)
        self._pending += size
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write())
        return call.done

    async def first(self, limit: int, size: int) -> list[Spooled]:
        """The oldest events, one at the least; waits while there are none.

        Args:
            limit: Events, at the most.
            size: Bytes of their payloads, at the most; one alone may have more.

        Raises:
            TowerbusError: They can't be read, or the file is gone and there are no more.
        """
        while not self.events:
            if self._gone:
                raise TowerbusError(f"the spool {self._gone}; all that it held was forwarded, and a new one is made")
            self._news = Deferred()
            await self._news
        try:
            return await self._thread.run(self._file.first, limit, size)
        except sqlite3.Error as error:
            raise TowerbusError(f"the spool can't be read: {_meaning(error)}") from error

    async def remove(self, taken: Sequence[Spooled]) -> None:
        """Let go of the oldest events, which `first` gave.

        Raises:
            TowerbusError: It can't be written.
        """
        try:
            await self._thread.run(self._file.remove, taken[-1].number)
        except sqlite3.Error as error:
            raise TowerbusError(f"the spool can't be written: {_meaning(error)}") from error
        self.events -= len(taken)
        self.bytes -= sum(len(each.event.payload) + OVERHEAD for each in taken)
        self._troubled("")

    async def close(self) -> None:
        """Let go of the file, when what is being written is written; more is refused."""
        self._closed = True
        calls, self._calls = self._calls, []
        for call in calls:
            call.done.errback(BusUnavailable("the bridge is stopping", _ids(call.events)))
        await self._thread.run(self._file.close)
        self._thread.close()

    async def _write(self) -> None:
        while self._calls:
            calls, self._calls = self._calls, []
            size = sum(call.size for call in calls)
            try:
                added = await self._thread.run(self._file.add, [call.events for call in calls])
            except sqlite3.Error as error:
                self._failed(calls, f"the spool can't be written: {_meaning(error)}", sure=not in_doubt(error))
                continue
            except SpoolGone as error:
                self._gone = str(error)
                # Producers are not told where it is.
                text = "the spool's file was moved or removed; a new one is made, come back later"
                self._failed(calls, text, sure=True, trouble=f"the spool {error}")
                self._rouse()
                continue
            finally:
                self._pending -= size
            self.events += added.events
            self.bytes += added.bytes
            if self.events:
                self._rouse()
            for call in calls:
                call.done.callback(None)
        self._writing = False

    def _failed(self, calls: Sequence[_Call], text: str, *, sure: bool, trouble: str = "") -> None:
        self._troubled(trouble or text)
        # Not BusUnavailable: the producer would be told that the bus is away.
        kind = NoRoom if sure else NotConfirmed
        for call in calls:
            call.done.errback(kind(text, _ids(call.events)))

    def _troubled(self, text: str) -> None:
        if text != self.trouble:
            self.trouble = text
            self.on_trouble(text)

    def _rouse(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.called:
            news.callback(None)


async def open_spool(path: Path, reactor: Any, name: str, max_bytes: int) -> Spool:
    """Open a spool; what it held is still there.

    Args:
        path: Its database; it is made where it is missing.
        reactor: Where answers go.
        name: The thread's.
        max_bytes: Bytes that it may hold, at the most.

    Raises:
        TowerbusError: It can't be used; the text says why.
    """
    thread = OneThread(reactor, name)

    def opened() -> tuple[SpoolFile, Held]:
        file = SpoolFile(path)
        try:
            return file, file.held()
        except BaseException:
            file.close()
            raise

    try:
        file, held = await thread.run(opened)
    except (sqlite3.Error, OSError) as error:
        thread.close()
        raise TowerbusError(f"the spool {path}: {_meaning(error)}") from error
    except BaseException:
        thread.close()
        raise
    return Spool(file, thread, held, max_bytes)


def _meaning(error: Exception) -> str:
    mend = _MENDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return f"{mend} ({error})" if mend else meaning(error)


def _ids(events: Sequence[Event]) -> tuple[str, ...]:
    return tuple(event.id for event in events)


def _nothing(_: str) -> None:
    """Nobody wants to know."""
