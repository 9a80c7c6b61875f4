"""The source `postgres`: an outbox table, read in the order of its key; LISTEN/NOTIFY is only the doorbell.

A row is deleted, or marked, when its event is confirmed, so what was read and not confirmed is read again, with the
same id. Which rows may be read, and when: `towerbus/postgres/outbox.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from towerbus.bridge.interface import IFeed, ISource, Measure, Surroundings
from towerbus.bridge.message import Message
from towerbus.doctor import findings
from towerbus.doctor.findings import Finding
from towerbus.errors import ConfigError
from towerbus.postgres.outbox import Outbox, Row, Table
from towerbus.postgres.session import DatabaseTrouble, Session, check_url

SHORTEST_LOOK, LONGEST_LOOK = 0.005, 0.25
"""Seconds between looks while a transaction that has not ended holds rows back."""
HELD_LONG = 10.0
"""Seconds from which on that is called trouble."""
STANDS_BY = 1.0
"""Seconds between looks whether the bridge that reads the table is gone."""
LATE = 60.0
"""Seconds from which on a row that waits is worth a word of the doctor's."""
_log = Logger()


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[bridge.source]`.

    Attributes:
        url: `postgresql://USER:PASSWORD@HOST/DATABASE`; what it leaves out comes from libpq's own sources.
        table: The table, with its schema where it is not in the search path.
        key: The column that rows are ordered by.
        group: The column with the event's group.
        type: The column with its type.
        payload: The column with its payload.
        at: The column with the time of the row.
        mark: The column that is set when the event is confirmed; where it is not given, the row is deleted.
        channel: What the doorbell notifies.
        batch: Rows that are under way at once, at the most.
        poll: Seconds between looks when nobody rings.
    """

    url: str
    table: str = "towerbus_outbox"
    key: str = "id"
    group: str = "group"
    type: str = "type"
    payload: str = "payload"
    at: str = "at"
    mark: str | None = None
    channel: str = "towerbus_outbox"
    batch: int = 500
    poll: float = 1.0

    def __post_init__(self) -> None:
        for name in ("url", "table", "key", "group", "type", "payload", "at", "channel"):
            if not getattr(self, name):
                raise ValueError(f"{name}: wanted a text that is not empty")
        if not 1 <= self.batch <= MAX_BATCH:
            raise ValueError(f"batch: got {self.batch}, wanted 1 to {MAX_BATCH}")
        if not 0 < self.poll <= MAX_POLL:
            raise ValueError(f"poll: got {self.poll}, wanted seconds above 0, and at most {MAX_POLL:g}")
        try:
            check_url(self.url)
        except ConfigError as error:
            raise ValueError(f"url: {error}") from error


MAX_BATCH = 10_000
MAX_POLL = 3600.0


def make(options: Options, surroundings: Surroundings) -> OutboxSource:
    """Make the source.

    Raises:
        ConfigError: The URL is none, or psycopg is missing.
    """
    check_url(options.url)
    return OutboxSource(options, surroundings)


async def look(options: Options, surroundings: Surroundings) -> Sequence[Finding]:
    """See for the doctor whether the table will do, and whether rows wait in it."""
    check_url(options.url)
    session = Session(surroundings.reactor, options.url, "towerbus doctor")
    try:
        await session.connect()
        outbox = Outbox(_table(options))
        await session.run(outbox.check)
        count, oldest = await session.run(outbox.waiting)
    except DatabaseTrouble as trouble:
        return [
            findings.error(
                "source", str(trouble), "see that PostgreSQL runs and lets this user in; docs/outbox.md has the table"
            )
        ]
    finally:
        await session.close()
    text = f"{count} rows wait in {options.table}, the oldest for {oldest:.0f} s"
    if oldest > LATE:
        return [findings.warning("source", text, "does the bridge run? what do its log and /readyz say?")]
    return [findings.ok("source", text)]


@implementer(ISource)
class OutboxSource:
    """Reads one outbox.

    Args:
        options: Which.
        surroundings: What the bridge is made with.
    """

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        self._options = options
        self._name = surroundings.name
        self._reactor = surroundings.reactor
        self._held_since: float | None = None
        self._last_key = 0
        self._standby = self._late = False

    async def run(self, feed: IFeed) -> None:
        """Read and forward until it is cancelled or the session ends."""
        session = Session(self._reactor, self._options.url, f"towerbus-bridge {self._name}")
        outbox = Outbox(_table(self._options))
        self._held_since, self._late = None, False
        try:
            await session.connect(self._options.channel)
            await session.run(outbox.check)
            feed.established()
            await self._until_alone(session, outbox)
            while True:
                await self._turn(session, outbox, feed)
        finally:
            await session.close()

    def measures(self) -> Sequence[Measure]:
        """How long rows have been held back, how far it is, and whether another bridge reads the table."""
        held = 0.0 if self._held_since is None else self._reactor.seconds() - self._held_since
        return (
            Measure("outbox_held_seconds", "how long a transaction that has not ended has held rows back", held),
            Measure("outbox_key", "the key of the last row whose event is confirmed", self._last_key),
            Measure("outbox_standby", "1 while another bridge reads the table", self._standby),
        )

    async def _until_alone(self, session: Session, outbox: Outbox) -> None:
        self._standby = False
        while not await session.run(outbox.try_alone):
            if not self._standby:
                _log.info("outbox_standby: another bridge reads {table}", table=self._options.table, bridge=self._name)
                self._standby = True
            await deferLater(self._reactor, STANDS_BY, lambda: None)
        self._standby = False
        _log.info("outbox_active: reads {table}", table=self._options.table, bridge=self._name)

    async def _turn(self, session: Session, outbox: Outbox, feed: IFeed) -> None:
        """Look once, and do what there is to do."""
        session.rung = False
        rows = await session.run(partial(outbox.read, limit=self._options.batch))
        if rows:
            await feed.forward([self._message(row) for row in rows])
            await session.run(partial(outbox.done, keys=[row.key for row in rows]))
            self._last_key = rows[-1].key
        self._see_if_held(outbox, feed)
        if rows or session.rung:
            return
        if self._held_since is not None:
            held = self._reactor.seconds() - self._held_since
            await deferLater(self._reactor, min(max(held / 4, SHORTEST_LOOK), LONGEST_LOOK), lambda: None)
        else:
            await self._doorbell(session)

    def _see_if_held(self, outbox: Outbox, feed: IFeed) -> None:
        now = self._reactor.seconds()
        if not outbox.held_by:
            self._held_since = None
        elif self._held_since is None or outbox.new_holders:
            self._held_since = now
        late = self._held_since is not None and now - self._held_since > HELD_LONG
        if late:
            who = ", ".join("a prepared transaction" if pid is None else f"process {pid}" for pid in outbox.held_by)
            feed.trouble(
                f"rows of {self._options.table} are held back for over {HELD_LONG:g} s by a transaction that has "
                f"inserted into it and has not ended: {who} (see pg_stat_activity, pg_prepared_xacts)"
            )
        elif self._late:
            feed.trouble("")
        self._late = late

    async def _doorbell(self, session: Session) -> None:
        """Wait until somebody rings, the session ends, or it is time to look anyhow."""
        woken: Deferred[None] = Deferred()
        session.watch(lambda: woken.callback(None))
        timer = self._reactor.callLater(self._options.poll, woken.callback, None)
        try:
            await woken
        finally:
            session.unwatch()
            if timer.active():
                timer.cancel()

    def _message(self, row: Row) -> Message:
        return Message(
            body=row.payload,
            id=row.id,
            group=row.group,
            type=row.type,
            headers={"key": row.key},
            time=row.at,
            content_type="application/json",
            place=f"table {self._options.table}",
        )


def _table(options: Options) -> Table:
    columns: dict[str, Any] = {key: getattr(options, key) for key in ("key", "group", "type", "payload", "at", "mark")}
    return Table(options.table, **columns)
