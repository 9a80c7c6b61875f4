"""A session with PostgreSQL, on the reactor."""

import psycopg
import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from towerbus.errors import ConfigError
from towerbus.postgres.session import DatabaseTrouble, Session, check_url

pytestmark = pytest.mark.long


@pytest.fixture
def session(database):
    return Session(reactor, database, "test")


def rings(session):
    """A Deferred that fires when the server has said something."""
    rung = Deferred()
    session.watch(lambda: rung.callback(None))
    return rung


def one(statement):
    return lambda connection: connection.execute(statement).fetchone()[0]


async def test_statements_and_notifications(session, database):
    await session.connect("bell", 'another "bell"')
    assert await session.run(one("SELECT current_setting('application_name')")) == "test"
    rung = rings(session)

    def notify():
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("NOTIFY bell")

    await deferToThread(notify)
    await rung
    assert not session.rung
    await session.run(one("SELECT 1"))
    assert session.rung, "the next call reads it"
    await session.close()


async def test_the_end_of_the_server_rings_and_is_named(session, postgres):
    await session.connect()
    rung = rings(session)
    await deferToThread(postgres.kill)
    await rung
    with pytest.raises(DatabaseTrouble, match="server closed the connection|SSL|terminat"):
        await session.run(one("SELECT 1"))
    await session.close()
    postgres.start()


async def test_a_frozen_server_is_given_up_in_time(database, postgres):
    session = Session(reactor, database, "test", timeout=0.5)
    await session.connect()
    postgres.freeze()
    with pytest.raises(DatabaseTrouble, match=r"no answer within 0\.5 s"):
        await session.run(one("SELECT 1"))
    with pytest.raises(DatabaseTrouble):
        await session.run(one("SELECT 1"))
    await session.close()
    postgres.thaw()


async def test_a_call_that_is_cancelled_is_cut_off_by_the_close(session):
    await session.connect()
    call = session.run(one("SELECT pg_sleep(19)"))
    call.cancel()
    with pytest.raises(CancelledError):
        await call
    await session.close()


async def test_a_server_that_is_not_there_is_named(postgres):
    session = Session(reactor, "postgresql://tb:secret@127.0.0.1:9/tb", "test")
    with pytest.raises(DatabaseTrouble, match="refused") as caught:
        await session.connect()
    assert "secret" not in str(caught.value)
    await session.close()


async def test_a_statement_that_is_refused_is_named(session):
    await session.connect()
    with pytest.raises(DatabaseTrouble, match='relation "nowhere" does not exist'):
        await session.run(one("SELECT * FROM nowhere"))
    await session.close()


async def test_a_session_that_was_never_connected_says_so_and_closes(session):
    with pytest.raises(DatabaseTrouble, match="not connected"):
        await session.run(one("SELECT 1"))
    await session.close()


def test_a_url_is_checked_and_not_quoted():
    check_url("postgresql://tb:secret@host/db?sslmode=require")
    check_url("host=x dbname=y")
    check_url("")
    with pytest.raises(ConfigError, match="postgresql://USER") as caught:
        check_url("postgresql://tb:secret@host:port:x/db?nonsense")
    assert "secret" not in str(caught.value)


async def test_a_server_that_is_frozen_while_it_is_dialled_is_given_up_in_time(database, postgres):
    session = Session(reactor, f"{database}?connect_timeout=2", "test")
    postgres.freeze()
    with pytest.raises(DatabaseTrouble, match="timeout"):
        await session.connect()
    await session.close()
    postgres.thaw()
