"""The source `postgres`: real bridges, a real PostgreSQL, and the log at the end."""

import random
import secrets
import subprocess
import sys
import threading
import time
import tomllib

import psycopg
import pytest
from support.feeding import feeding, payloads, refused
from support.intakes import channel, declare_now, taken, unrepeated
from support.outbox import TABLE, declare, insert
from support.running import environment, wait_for
from support.worker import LogText, running_worker
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from towerbus.bridge import configuration
from towerbus.bridge.interface import Surroundings
from towerbus.bridge.sources import postgres as source
from towerbus.doctor import findings

pytestmark = pytest.mark.long

TRANSACTIONS = 10_000
WRITERS = 4


def table(url, **more):
    """A bridge that reads the outbox."""
    lines = [f"{key} = {value!r}" for key, value in ({"kind": "postgres", "url": url, "poll": 20.0} | more).items()]
    return "\n".join(['[[bridge]]\nname = "outbox"', "[bridge.source]", *lines])


def numbers(url):
    """The numbers in the events that are in the intake, taken out."""
    return [payload["n"] for payload in payloads(unrepeated(taken(url)))]


def rows(database):
    with psycopg.connect(database) as connection:
        return connection.execute("SELECT count(*) FROM towerbus_outbox").fetchone()[0]


def test_the_doorbell_brings_a_row_at_once_and_it_is_deleted_when_confirmed(vhost, database, tmp_path):
    declare_now(vhost)
    declare(database)
    with feeding(tmp_path, vhost, table(database)) as bridge:
        bridge.await_log("outbox_active")
        with psycopg.connect(database) as connection:
            insert(connection, 1, 2)
            connection.commit()
        wait_for(lambda: rows(database) == 0, 10, "the deletion: nobody else rings, and a look comes after 20 s only")
        assert bridge.measure("outbox_key") == 2
        bridge.stop()
    (message,) = taken(vhost)
    assert [event.payload for event in message.events] == [b'{"n":  1}', b'{"n":  2}'], "byte for byte"
    assert abs(message.events[0].time - time.time()) < 600


def test_without_a_doorbell_rows_are_found_by_looking(vhost, database, tmp_path):
    declare_now(vhost)
    declare(database)
    with psycopg.connect(database, autocommit=True) as connection, feeding(tmp_path, vhost, table(database, poll=0.1)):
        connection.execute("DROP TRIGGER towerbus_ring ON towerbus_outbox")
        insert(connection, 1)
        wait_for(lambda: rows(database) == 0, 20, "the deletion")
    assert numbers(vhost) == [1]


def test_other_columns_and_a_mark_in_place_of_deletion(vhost, database, tmp_path):
    declare_now(vhost)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE SCHEMA app; CREATE TABLE app.events (nr serial PRIMARY KEY, born timestamptz DEFAULT now(), "
            "kind text, job int, body jsonb, sent timestamptz)"
        )
        connection.execute("INSERT INTO app.events (kind, job, body) VALUES ('job_events', 42, '{\"n\": 1}')")
        columns = {"key": "nr", "group": "kind", "type": "job", "payload": "body", "at": "born", "mark": "sent"}
        with feeding(tmp_path, vhost, table(database, table="app.events", **columns)):
            marked = "SELECT sent IS NOT NULL FROM app.events"
            wait_for(lambda: connection.execute(marked).fetchone()[0], 20, "the mark")
    ((event,),) = [message.events for message in taken(vhost)]
    assert (event.topic.group, event.topic.type, event.payload) == ("job_events", "42", b'{"n": 1}')


def test_a_row_that_is_no_event_goes_to_the_dead_queue_and_the_others_go_on(vhost, database, tmp_path):
    declare_now(vhost)
    declare(database)
    with psycopg.connect(database, autocommit=True) as connection, feeding(tmp_path, vhost, table(database)):
        insert(connection, 1)
        connection.execute("INSERT INTO towerbus_outbox (\"group\", type, payload) VALUES ('no group', 'x', '{}')")
        insert(connection, 3)
        wait_for(lambda: rows(database) == 0, 20, "the deletion")
    assert numbers(vhost) == [1, 3]
    with channel(vhost) as opened:
        _, properties, body = opened.basic_get("towerbus.dead", auto_ack=True)
    assert body == b"{}"
    assert "no group" in properties.headers["towerbus-reason"]


def test_a_second_bridge_stands_by_and_takes_over(vhost, database, tmp_path):
    declare_now(vhost)
    declare(database)
    (tmp_path / "second").mkdir()
    with feeding(tmp_path, vhost, table(database)) as first:
        first.await_log("outbox_active")
        with feeding(tmp_path / "second", vhost, table(database)) as second:
            second.await_log("outbox_standby")
            second.await_well()
            assert second.measure("outbox_standby") == 1
            first.kill()
            second.await_log("outbox_active")
            with psycopg.connect(database, autocommit=True) as connection:
                insert(connection, 1)
            wait_for(lambda: rows(database) == 0, 20, "the deletion")
    assert numbers(vhost) == [1]


def test_what_is_wrong_is_said_and_heals_when_it_is_mended(vhost, database, postgres, tmp_path):
    declare_now(vhost)
    with feeding(tmp_path, vhost, table(database)) as bridge:
        bridge.await_broken("there is no table towerbus_outbox")
        declare(database)
        bridge.await_well()
        postgres.kill()
        bridge.await_broken("bridge outbox")
        postgres.start()
        bridge.await_well()
        with psycopg.connect(database, autocommit=True) as connection:
            insert(connection, 1)
        wait_for(lambda: rows(database) == 0, 20, "the deletion")
        bridge.stop()
        assert "Traceback" not in bridge.log
    assert numbers(vhost) == [1]


def test_a_transaction_that_does_not_end_is_named(vhost, database, tmp_path):
    declare_now(vhost)
    declare(database)
    with psycopg.connect(database) as holds, psycopg.connect(database) as other, feeding(tmp_path, vhost, table(database)) as bridge:  # fmt: skip
        insert(holds, 1)
        insert(other, 2)
        other.commit()
        bridge.await_broken(f"process {holds.info.backend_pid}")
        assert bridge.measure("outbox_held_seconds") > 10
        holds.commit()
        wait_for(lambda: rows(database) == 0, 20, "the deletion")
        bridge.await_well()
    assert numbers(vhost) == [1, 2]


def test_its_own_user_needs_no_more_than_the_documentation_says(vhost, database, postgres, tmp_path):
    declare_now(vhost)
    declare(database)
    user = f"u{secrets.token_hex(4)}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {user} LOGIN")
        url = postgres.url_of(database.rpartition("/")[2], user)
        with feeding(tmp_path, vhost, table(url)) as bridge:
            connection.execute(f"GRANT SELECT ON towerbus_outbox TO {user}")
            bridge.await_broken(f"GRANT SELECT, DELETE ON towerbus_outbox TO {user}")
            connection.execute(f"GRANT SELECT, DELETE ON towerbus_outbox TO {user}")
            bridge.await_log("outbox_active")
            insert(connection, 1)
            wait_for(lambda: rows(database) == 0, 40, "the deletion")
    assert numbers(vhost) == [1]


DJANGO = """
import django
from django.conf import settings
from django.db import connection, models, transaction

HOST, PORT, NAME = {host!r}, {port!r}, {name!r}
database = {{"ENGINE": "django.db.backends.postgresql", "USER": "tb", "HOST": HOST, "PORT": PORT, "NAME": NAME}}
settings.configure(DATABASES={{"default": database}}, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()

class OutboxEvent(models.Model):
    group, type, payload = models.TextField(), models.TextField(), models.JSONField()

    class Meta:
        app_label = "jobs"
        managed = False
        db_table = "towerbus_outbox"

def emit(n):
    OutboxEvent.objects.create(group="jobs", type="status_changed", payload={{"n": n}})

with transaction.atomic():
    emit(1)
try:
    with transaction.atomic():
        emit(2)
        raise ValueError
except ValueError:
    pass
emit(3)
"""
"""The model of docs/outbox.md."""


def test_an_outbox_under_django(vhost, database, postgres, tmp_path):
    declare_now(vhost)
    declare(database)
    text = DJANGO.format(host="127.0.0.1", port=str(postgres.port), name=database.rpartition("/")[2])
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60, env=environment(), cwd=tmp_path)
    with feeding(tmp_path, vhost, table(database)):
        wait_for(lambda: rows(database) == 0, 40, "the deletion")
    assert numbers(vhost) == [1, 3]


async def test_the_doctor_looks_at_the_table_and_at_what_waits(database):
    options = source.Options(url=database)
    around = Surroundings("outbox", reactor, None, 1024)
    (found,) = await source.look(options, around)
    assert (found.level, "there is no table" in found.text) == (findings.Level.ERROR, True)
    await deferToThread(declare, database)
    (found,) = await source.look(options, around)
    assert (found.level, found.text) == (findings.Level.OK, "0 rows wait in towerbus_outbox, the oldest for 0 s")

    def wait():
        with psycopg.connect(database, autocommit=True) as connection:
            insert(connection, 1)
            connection.execute("UPDATE towerbus_outbox SET at = now() - interval '2 minutes'")

    await deferToThread(wait)
    (found,) = await source.look(options, around)
    assert (found.level, "1 rows wait" in found.text) == (findings.Level.WARNING, True)


def test_the_examples_are_good():
    names = ("OUTBOX_URL", "AWX_SECRET", "AWX_DATABASE_URL")
    for file in ("outbox.toml", "awx_relay.toml"):
        path = TABLE.with_name(file)
        tables = tomllib.loads(path.read_text())["bridge"]
        (bridge,) = configuration.read(tables, str(path), dict.fromkeys(names, "postgresql://h/d"))
        assert bridge.module.make(bridge.options, Surroundings(bridge.name, reactor, None, 1024))


def test_what_is_wrong_in_the_configuration_is_named_before_anything_starts(tmp_path):
    said = refused(tmp_path, table("postgresql://tb:secret@h:p:x/db", batch=0))
    assert "batch: got 0, wanted 1 to 10000" in said
    said = refused(tmp_path, table("postgresql://tb:secret@h/db?nonsense"))
    assert "bridge 'outbox'" in said
    assert "postgresql://USER:PASSWORD@HOST/DATABASE" in said
    assert "secret" not in said


def test_a_row_that_was_emitted_but_not_deleted_is_not_repeated(vhost, database, tmp_path):
    """The bridge dies between the two: a lock on the row keeps it from the second."""
    declare(database)
    with (
        running_worker(tmp_path, vhost) as worker,
        psycopg.connect(database, autocommit=True) as connection,
        psycopg.connect(database) as holds,
    ):
        worker.await_log("worker_active")
        insert(connection, 1, 2)
        holds.execute("SELECT * FROM towerbus_outbox FOR UPDATE")
        with LogText(vhost) as log, feeding(tmp_path, vhost, table(database)) as bridge:
            log.await_events(2)
            bridge.kill()
            # Its session would delete the rows after all, when the lock is gone.
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'towerbus-bridge%'"
            )
            holds.rollback()
            assert rows(database) == 2
            bridge.start()
            wait_for(lambda: rows(database) == 0, 40, "the deletion")
            insert(connection, 3)
            log.await_events(3)
            assert [payload["n"] for payload in payloads(log.events)] == [1, 2, 3]


class Application:
    """An application that commits and rolls back, whatever becomes of its database. What was committed stands in a table of
    its own: it can't know that itself, since a commit may succeed whose answer never comes.
    """

    def __init__(self, database):
        self._database = database
        self._lock = threading.Lock()
        self.done = 0
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE TABLE truth (key bigint, n int)")
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def await_done(self, count):
        wait_for(lambda: self.done >= count, 120, f"{count} transactions")

    def join(self):
        """Wait for the end; returns what was committed, in the order of the key."""
        for thread in self._threads:
            thread.join()
        with psycopg.connect(self._database) as connection:
            return [n for (n,) in connection.execute("SELECT n FROM truth ORDER BY key")]

    def _write(self, number):
        chance = random.Random(number)
        connection = None
        for n in range(number, TRANSACTIONS, WRITERS):
            while connection is None:
                try:
                    connection = psycopg.connect(self._database)
                except psycopg.OperationalError:
                    time.sleep(0.05)
            try:
                (key,) = insert(connection, n)
                connection.execute("INSERT INTO truth VALUES (%s, %s)", (key, n))
                if chance.random() < 0.02:
                    connection.execute("SELECT pg_sleep(0.02)")
                connection.rollback() if n % 3 == 0 else connection.commit()
            except psycopg.OperationalError:
                connection.close()
                connection = None
            with self._lock:
                self.done += 1
        connection.close()


def test_exactly_what_is_committed_arrives_in_key_order_whatever_is_killed(own_broker, postgres, database, tmp_path):
    url = own_broker.vhost()
    declare(database)
    with (
        running_worker(tmp_path, url, name="first") as first,
        feeding(tmp_path, url, table(database, poll=1.0)) as bridge,
    ):
        first.await_log("worker_active")
        bridge.await_log("outbox_active")
        own_broker.settle()
        application = Application(database)
        application.await_done(TRANSACTIONS // 10)
        bridge.restart()
        application.await_done(TRANSACTIONS * 2 // 10)
        postgres.kill()
        postgres.start()
        application.await_done(TRANSACTIONS * 4 // 10)
        first.kill()
        with running_worker(tmp_path, url, name="second") as second:
            application.await_done(TRANSACTIONS * 6 // 10)
            own_broker.kill()
            application.await_done(TRANSACTIONS * 7 // 10)
            own_broker.recover()
            bridge.restart()
            application.await_done(TRANSACTIONS * 8 // 10)
            postgres.kill()
            bridge.restart()
            postgres.start()
            committed = application.join()
            wait_for(lambda: rows(database) == 0, 120, f"the rows: {bridge.log}\n{second.log}")
            with LogText(url) as log:
                log.await_events(len(committed))
                found = [payload["n"] for payload in payloads(log.events)]
            bridge.stop()
    assert len(committed) > TRANSACTIONS / 2
    assert not [n for n in committed if n % 3 == 0]
    assert found == committed
