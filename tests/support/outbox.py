"""An outbox for tests: that of the example."""

from __future__ import annotations

from pathlib import Path

import psycopg

TABLE = Path(__file__).parents[2] / "examples" / "bridges" / "outbox.sql"


def declare(url):
    """Make the table, and the trigger that rings."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLE.read_text())


def insert(connection, *numbers):
    """Insert rows with numbers in their payloads; returns their keys. It commits nothing."""
    statement = """INSERT INTO towerbus_outbox ("group", type, payload) VALUES ('jobs', 'x', %s::json) RETURNING id"""
    return [connection.execute(statement, (f'{{"n":  {number}}}',)).fetchone()[0] for number in numbers]
