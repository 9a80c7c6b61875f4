"""An outbox: a table into which an application inserts its events, in the transaction that they are about.

Rows are read in the order of their key, and a row is read only when no row with a lower key can appear any more. Keys
are drawn from a sequence while transactions run, so a transaction that commits late makes a low key visible after a
higher one. But whoever inserts holds the table's RowExclusiveLock, from before it draws the key until its transaction
has ended. So:

1. see the highest key that is visible;
2. then see who holds the lock. Every lower key was drawn before, by one of these or by a transaction that has ended;
3. when all of these have ended, everything up to that key is settled: what is visible now is all there will ever be.

Only those are waited for who write to this table; and they take no lock that they would not take anyhow. See
docs/decisions/0004.

The functions here block, and take a connection in autocommit mode: each statement sees what is committed as it begins.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from towerbus.postgres.session import DatabaseTrouble

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import SQL, Composed, Identifier

LOWEST = -(2**63)
MAX_BYTES = 4 * 1024 * 1024
"""Bytes of payloads that are read at once; one row may have more."""
FIRST_ROWS = 16
"""Rows that are read before their size is known."""
_PREPARED = "-1/"
"""How the holder of a lock begins that is a prepared transaction: it has taken over from a session."""
_STANDS_BY = 0x746F7765
"""The first half of the advisory lock, of which the table is the second."""

_HOLDERS = """
    SELECT virtualtransaction, pid FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
      AND relation = %s AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_COLUMNS = """
    SELECT attname, format_type(atttypid, NULL), typcategory
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""
_TIME = "D"
"""PostgreSQL's category of the types of a time, and of the domains over them."""
_UNIQUE = """
    SELECT 1 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
    WHERE indrelid = %s AND indisunique AND indisvalid AND indpred IS NULL AND indnkeyatts = 1 AND attname = %s
"""
_MAY_NOT = """
    SELECT string_agg(needed, ', '), current_user FROM unnest(%s::text[]) AS needed
    WHERE NOT has_table_privilege(%s::oid, needed)
"""
_SEQUENCE = """
    SELECT seqcache, seqincrement, seqcycle FROM pg_sequence
    WHERE seqrelid = pg_get_serial_sequence(%s, %s)::regclass
"""


class Table(msgspec.Struct, frozen=True):
    """Where the rows are.

    Attributes:
        name: The table, with its schema where it is not in the search path: `app.towerbus_outbox`.
        key: The column that rows are ordered by: an integer from a sequence.
        group: The column with the event's group.
        type: The column with its type.
        payload: The column with its payload: json, jsonb, or a text that holds JSON.
        at: The column with the time of the row: timestamptz.
        mark: The column (timestamptz) that is set when the event is confirmed; where it is None, the row is deleted.
    """

    name: str
    key: str
    group: str
    type: str
    payload: str
    at: str
    mark: str | None = None


class Row(NamedTuple):
    """A row.

    Attributes:
        key: Its key.
        id: The event's id: derived from the database, the table, the key and the time, so that it is the same whenever
            the row is read, and another one when a table that is made anew begins to count again.
        at: When it was inserted, in seconds since the epoch of Unix; None where the column has no such time.
        group: The event's group; empty where the column is NULL, as are the type and the payload.
        type: The event's type.
        payload: The event's payload.
    """

    key: int
    id: str
    at: float | None
    group: str
    type: str
    payload: bytes


class Outbox:
    """What is known of one table, in one session.

    Args:
        table: Where the rows are.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._relation = 0
        self._name_hash = ""
        self._done = self._settled = LOWEST
        self._candidate = LOWEST
        self._holders: dict[str, int | None] = {}
        self._fresh = False

    @property
    def new_holders(self) -> bool:
        """Whether these began to do so with the last look: rows before theirs have got through."""
        return self._fresh

    @property
    def held_by(self) -> list[int | None]:
        """The server's process ids of the sessions that hold rows back; None stands for a prepared transaction."""
        return sorted(set(self._holders.values()), key=lambda pid: pid or 0)

    def check(self, connection: Connection[Any]) -> None:
        """Find the table, and see whether it will do.

        Raises:
            DatabaseTrouble: It will not; the text says why, and how to mend it.
        """
        if _one(connection, "SELECT pg_is_in_recovery()"):
            raise DatabaseTrouble("this server is a standby: the outbox is read, and emptied, on the primary")
        relation = _one(connection, "SELECT to_regclass(%s)::oid", self._quoted)
        if relation is None:
            raise DatabaseTrouble(f"there is no table {self._table.name}; docs/outbox.md has its definition")
        columns = {name: tuple(kind) for name, *kind in connection.execute(_COLUMNS, (relation,))}
        table = self._table
        for column in (table.key, table.group, table.type, table.payload, table.at, table.mark):
            if column is not None and column not in columns:
                raise DatabaseTrouble(f"table {table.name} has no column {column}; it has {', '.join(sorted(columns))}")
        kind, category = columns[table.at]
        if category != _TIME:
            raise DatabaseTrouble(f"column {table.at} of {table.name} is of the type {kind}; make it a timestamptz")
        if not _one(connection, _UNIQUE, relation, table.key):
            raise DatabaseTrouble(f"column {table.key} of {table.name} has no unique index; make it the primary key")
        self._check_sequence(connection)
        self._check_grants(connection, relation)
        where = f"{_one(connection, 'SELECT current_database()')}\0{self._quoted}"
        self._name_hash = hashlib.sha256(where.encode()).hexdigest()[:12]
        self._relation = relation

    def try_alone(self, connection: Connection[Any]) -> bool:
        """Try to be the only one who reads this table, until the session ends; True when it is so."""
        return bool(_one(connection, "SELECT pg_try_advisory_lock(%s, %s::oid::int)", _STANDS_BY, self._relation))

    def read(self, connection: Connection[Any], limit: int) -> list[Row]:
        """The next rows, those of which nothing was read in this session and that nothing can come before.

        Args:
            connection: Of the session in which it was checked.
            limit: How many, at the most.
        """
        self._settle(connection)
        if self._settled <= self._done:
            return []
        found: list[Row] = []
        size = 0
        # A cursor of the server's: what is too much for one turn is not even sent.
        with connection.transaction(), connection.cursor("towerbus_outbox") as cursor:
            cursor.execute(self._rows, (self._done, self._settled, limit))
            wanted = FIRST_ROWS
            while wanted and (rows := cursor.fetchmany(wanted)):
                found += [self._row(*row) for row in rows]
                size += sum(len(row.payload) for row in found[-len(rows) :])
                wanted = max(0, min(limit - len(found), (MAX_BYTES - size) * len(found) // (size + 1)))
        return found

    def waiting(self, connection: Connection[Any]) -> tuple[int, float]:
        """How many rows wait (a million at the most), and for how many seconds the oldest of them does."""
        sql, names = self._sql()
        statement = sql(
            "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(at) FILTER (WHERE isfinite(at))), 0)"
            "::float8 FROM (SELECT {at} AS at FROM {table} WHERE true {open} LIMIT 1000000) AS waiting"
        ).format(**names)
        count, oldest = connection.execute(statement).fetchone() or (0, 0.0)
        return count, oldest

    def done(self, connection: Connection[Any], keys: list[int]) -> None:
        """Delete or mark rows whose events are confirmed; they were all that was read."""
        connection.execute(self._remove, (keys,))
        self._done = max(keys, default=self._done)

    def _settle(self, connection: Connection[Any]) -> None:
        """Find out how far rows are settled; the order of the statements is what counts here."""
        self._fresh = False
        if self._holders:
            self._see_holders(connection, among=self._holders)
        if self._holders:
            return
        if self._candidate <= max(self._settled, self._done):
            # None waits: is there more?
            newest = _one(connection, self._newest, self._done)
            if newest is None or newest <= self._settled:
                return
            self._candidate = newest
            self._see_holders(connection)
            self._fresh = bool(self._holders)
        if not self._holders:
            self._settled = self._candidate

    def _see_holders(self, connection: Connection[Any], among: dict[str, int | None] | None = None) -> None:
        """See who holds the lock; among those that held it before, who still does, or who has taken over."""
        found = dict(connection.execute(_HOLDERS, (self._relation,)).fetchall())
        if among is not None:
            # Any prepared transaction may be the heir of one that has gone; where none has gone, there is no new heir.
            heirs = any(who not in found for who in among if not who.startswith(_PREPARED))
            found = {who: pid for who, pid in found.items() if who in among or (heirs and who.startswith(_PREPARED))}
        self._holders = found

    def _check_sequence(self, connection: Connection[Any]) -> None:
        table = self._table
        found = connection.execute(_SEQUENCE, (self._quoted, table.key)).fetchone()
        if found is None:
            raise DatabaseTrouble(
                f"column {table.key} of {table.name} has no sequence of its own; make it GENERATED ALWAYS AS IDENTITY"
            )
        if found != (1, 1, False):
            raise DatabaseTrouble(
                f"the sequence of {table.name}.{table.key} must have CACHE 1, INCREMENT 1 and NO CYCLE: otherwise keys "
                "are not drawn in order"
            )

    def _check_grants(self, connection: Connection[Any], relation: int) -> None:
        needed = ["SELECT", "DELETE" if self._table.mark is None else "UPDATE"]
        missing, user = connection.execute(_MAY_NOT, (needed, relation)).fetchone() or (None, "")
        if missing:
            raise DatabaseTrouble(
                f"user {user} lacks {missing} on {self._table.name}: GRANT {', '.join(needed)} ON {self._table.name} "
                f"TO {user}"
            )

    def _row(self, key: int, at: int | None, group: str | None, type_: str | None, payload: str | None) -> Row:
        id_ = f"outbox-{self._name_hash}-{key}-{at}"
        seconds = None if at is None else at / 1_000_000
        return Row(key, id_, seconds, group or "", type_ or "", (payload or "").encode())

    @property
    def _quoted(self) -> str:
        return ".".join('"' + part.replace('"', '""') + '"' for part in self._table.name.split("."))

    @property
    def _newest(self) -> Composed:
        sql, names = self._sql()
        return sql("SELECT max({key}) FROM {table} WHERE {key} > %s {open}").format(**names)

    @property
    def _rows(self) -> Composed:
        sql, names = self._sql()
        return sql(
            "SELECT {key}, CASE WHEN isfinite({at}) THEN (extract(epoch FROM {at}) * 1000000)::bigint END, "
            "{group}::text, {type}::text, {payload}::text FROM {table} "
            "WHERE {key} > %s AND {key} <= %s {open} ORDER BY {key} LIMIT %s"
        ).format(**names)

    @property
    def _remove(self) -> Composed:
        sql, names = self._sql()
        if self._table.mark is None:
            return sql("DELETE FROM {table} WHERE {key} = ANY(%s)").format(**names)
        return sql("UPDATE {table} SET {mark} = now() WHERE {key} = ANY(%s)").format(**names)

    def _sql(self) -> tuple[type[SQL], dict[str, Identifier | SQL | Composed]]:
        from psycopg.sql import SQL, Identifier

        table = self._table
        names: dict[str, Identifier | SQL | Composed] = {
            key: Identifier(getattr(table, key)) for key in ("key", "group", "type", "payload", "at")
        }
        names["table"] = Identifier(*table.name.split("."))
        names["open"] = SQL("")
        if table.mark is not None:
            names["mark"] = Identifier(table.mark)
            names["open"] = SQL("AND {} IS NULL").format(names["mark"])
        return SQL, names


def _one(connection: Connection[Any], statement: Any, *given: object) -> Any:
    found = connection.execute(statement, given or None).fetchone()
    return None if found is None else found[0]
