"""The outbox, against a real PostgreSQL: which rows may be read, and when."""

import random
import threading
from contextlib import contextmanager

import psycopg
import pytest
from support.outbox import declare, insert
from support.running import wait_for

from towerbus.postgres.outbox import Outbox, Table
from towerbus.postgres.session import DatabaseTrouble

pytestmark = pytest.mark.long

OURS = Table("towerbus_outbox", "id", "group", "type", "payload", "at")


@contextmanager
def transaction(url):
    """A session in a transaction of its own; it is rolled back unless the test commits it."""
    connection = psycopg.connect(url)
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture
def url(database):
    declare(database)
    return database


class Reader:
    """Whoever reads the outbox."""

    def __init__(self, url, table=OURS):
        self.connection = psycopg.connect(url, autocommit=True)
        self.outbox = Outbox(table)
        try:
            self.outbox.check(self.connection)
        except DatabaseTrouble:
            self.connection.close()
            raise

    def keys(self, limit=1000):
        return [row.key for row in self.outbox.read(self.connection, limit)]

    def await_keys(self):
        """Look until there are some; others that wait in between are passed over."""
        found = []

        def some():
            found.extend(self.keys())
            return found

        wait_for(some, 20, "rows")
        return found

    def done(self, keys):
        self.outbox.done(self.connection, keys)


@pytest.fixture
def reader(url):
    made = Reader(url)
    yield made
    made.connection.close()


def test_rows_come_in_key_order_although_they_are_committed_in_another(url, reader):
    with transaction(url) as early, transaction(url) as late:
        insert(early, 1)
        insert(late, 2)
        late.commit()
        assert reader.keys() == []
        assert reader.outbox.held_by == [early.info.backend_pid]
        early.commit()
        assert reader.keys() == [1, 2]


def test_what_is_rolled_back_holds_nothing_back(url, reader):
    with transaction(url) as early, transaction(url) as late:
        insert(early, 1)
        insert(late, 2)
        late.commit()
        assert reader.keys() == []
        early.rollback()
        assert reader.keys() == [2]


def test_a_session_that_dies_holds_nothing_back(url, reader):
    with transaction(url) as early, transaction(url) as late:
        insert(early, 1)
        insert(late, 2)
        late.commit()
        assert reader.keys() == []
        reader.connection.execute("SELECT pg_terminate_backend(%s)", (early.info.backend_pid,))
        assert reader.await_keys() == [2]


def test_those_who_come_later_are_not_waited_for(url, reader):
    with transaction(url) as first, transaction(url) as later, transaction(url) as other:
        insert(first, 1)
        insert(other, 2)
        other.commit()
        assert reader.keys() == []
        insert(later, 3)
        first.commit()
        assert reader.keys() == [1, 2], "the third draws keys above these"
        reader.done([1, 2])
        assert reader.keys() == []
        later.commit()
        assert reader.keys() == [3]


def test_those_who_only_read_or_write_elsewhere_are_not_waited_for(url, reader):
    with transaction(url) as reads, transaction(url) as elsewhere, transaction(url) as writes:
        reads.execute("SELECT * FROM towerbus_outbox FOR SHARE")
        elsewhere.execute("CREATE TABLE elsewhere (n int)")
        insert(writes, 1)
        writes.commit()
        assert reader.keys() == [1]


def test_a_savepoint_that_is_rolled_back_takes_its_events_along(url, reader):
    with transaction(url) as writes:
        insert(writes, 1)
        writes.execute("SAVEPOINT here")
        insert(writes, 2)
        writes.execute("ROLLBACK TO here")
        insert(writes, 3)
        writes.commit()
    assert reader.keys() == [1, 3]


def test_a_prepared_transaction_holds_back_what_its_session_held_back(url, reader):
    reader.connection.execute("DROP TRIGGER towerbus_ring ON towerbus_outbox")  # what rings can't be prepared
    with transaction(url) as early, transaction(url) as late:
        insert(early, 1)
        insert(late, 2)
        late.commit()
        assert reader.keys() == []
        early.execute("PREPARE TRANSACTION 'early'")
        assert reader.keys() == []
        assert reader.outbox.held_by == [None]
    with transaction(url) as another:
        another.autocommit = True
        another.execute("COMMIT PREPARED 'early'")
    assert reader.keys() == [1, 2]


def test_a_table_that_is_locked_by_more_than_the_fast_path_has_room_for(url, reader):
    """PostgreSQL keeps the first 16 locks of a session in one place, and the others in another."""
    with transaction(url) as early, transaction(url) as late:
        for number in range(20):
            early.execute(f"CREATE TABLE IF NOT EXISTS t{number} (n int)")
        early.commit()
        for number in range(20):
            early.execute(f"INSERT INTO t{number} VALUES (1)")
        insert(early, 1)
        insert(late, 2)
        late.commit()
        assert reader.keys() == []
        early.commit()
        assert reader.keys() == [1, 2]


def test_confirmed_rows_are_deleted_or_marked_and_a_new_session_goes_on_behind_them(url, reader):
    reader.connection.execute("ALTER TABLE towerbus_outbox ADD COLUMN sent_at timestamptz")
    marking = Reader(url, Table("public.towerbus_outbox", "id", "group", "type", "payload", "at", "sent_at"))
    insert(reader.connection, *range(5))
    assert marking.keys(2) == [1, 2]
    marking.done([1, 2])
    assert marking.keys(2) == [3, 4]
    again = Reader(url, Table("towerbus_outbox", "id", "group", "type", "payload", "at", "sent_at"))
    assert again.keys() == [3, 4, 5], "3 and 4 were read, but not confirmed"
    assert reader.keys() == [1, 2, 3, 4, 5]
    reader.done([1, 2, 3, 4, 5])
    assert reader.connection.execute("SELECT count(*) FROM towerbus_outbox").fetchone() == (0,)
    marking.connection.close()
    again.connection.close()


def test_a_rows_id_is_the_same_for_all_readers_and_another_when_the_table_begins_anew(url, reader):
    insert(reader.connection, 1)
    (row,) = reader.outbox.read(reader.connection, 10)
    assert (row.group, row.type, row.payload) == ("jobs", "x", b'{"n":  1}')
    other = Reader(url)
    assert other.outbox.read(other.connection, 10) == [row]
    other.connection.close()
    reader.connection.execute("TRUNCATE towerbus_outbox RESTART IDENTITY")
    insert(reader.connection, 1)
    again = Reader(url)
    (new,) = again.outbox.read(again.connection, 10)
    again.connection.close()
    assert new.key == row.key
    assert new.id != row.id


def test_only_one_reads_a_table(url, reader):
    other = Reader(url)
    assert reader.outbox.try_alone(reader.connection)
    assert not other.outbox.try_alone(other.connection)
    reader.connection.close()
    wait_for(lambda: other.outbox.try_alone(other.connection), 20, "the lock")
    other.connection.close()


@pytest.mark.parametrize(
    ("mend", "names", "said"),
    [
        ("SELECT 1", {"name": "elsewhere"}, "no table elsewhere"),
        ("SELECT 1", {"payload": "body"}, "has no column body; it has at, group, id, payload, type"),
        (
            "ALTER TABLE towerbus_outbox ALTER at DROP DEFAULT, ALTER at TYPE text",
            {},
            "column at of towerbus_outbox is of the type text; make it a timestamptz",
        ),
        ("ALTER TABLE towerbus_outbox DROP CONSTRAINT towerbus_outbox_pkey", {}, "no unique index"),
        ("ALTER TABLE towerbus_outbox ALTER id DROP IDENTITY", {}, "no sequence"),
        ("ALTER TABLE towerbus_outbox ALTER id SET CACHE 20", {}, "CACHE 1"),
        ("ALTER TABLE towerbus_outbox ALTER id SET INCREMENT 2", {}, "INCREMENT 1"),
    ],
)
def test_a_table_that_will_not_do_is_named(url, mend, names, said):
    with transaction(url) as connection:
        connection.execute(mend)
        connection.commit()
    given = {"name": "towerbus_outbox", "key": "id", "group": "group", "type": "type", "payload": "payload", "at": "at"}
    with pytest.raises(DatabaseTrouble, match=said):
        Reader(url, Table(**(given | names)))


@pytest.mark.parametrize("seed", range(3))
def test_many_writers_at_once_with_every_way_to_end(url, reader, seed):
    """Exactly the committed rows, each once, in the order of the key, while all of it goes on."""
    committed, lock = [], threading.Lock()

    def writes(number):
        chance = random.Random(seed * 100 + number)
        with psycopg.connect(url) as connection:
            for _ in range(60):
                keys = [key for _ in range(chance.randint(1, 3)) for key in insert(connection, number)]
                connection.execute("SELECT pg_sleep(%s)", (chance.random() / 100,))
                if chance.random() < 1 / 3:
                    connection.rollback()
                else:
                    connection.commit()
                    with lock:
                        committed.extend(keys)

    threads = [threading.Thread(target=writes, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    found = []
    while any(thread.is_alive() for thread in threads) or found[-1:] != [max(committed)]:
        keys = reader.keys(50)
        found += keys
        reader.done(keys)
    assert found == sorted(committed)


def test_rows_that_lack_something_are_read_like_the_others(database):
    """They are no events, and whoever maps them says so; they must not keep those behind them from being read."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            'CREATE TABLE loose (id bigserial PRIMARY KEY, at timestamptz, "group" text, type text, payload text)'
        )
        connection.execute("INSERT INTO loose (at) VALUES (NULL), ('infinity'), ('-infinity'), ('2020-01-01Z')")
    reader = Reader(database, Table("loose", "id", "group", "type", "payload", "at"))
    try:
        rows = reader.outbox.read(reader.connection, 10)
        assert [row.at for row in rows] == [None, None, None, 1577836800.0]
        assert {(row.group, row.type, row.payload) for row in rows} == {("", "", b"")}
        assert len({row.id for row in rows}) == 4
        count, _ = reader.outbox.waiting(reader.connection)
        assert count == 4
    finally:
        reader.connection.close()
