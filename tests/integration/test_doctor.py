"""The doctor in front of a real broker: each thing that is wrong is named, with its mend, and nothing is changed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pika
import pytest
from support.running import environment, wait_for
from support.worker import running_worker

from towerbus.log.age import AgeClock
from towerbus.log.sqlite_writer import Writer

TOWERBUS = str(Path(sys.executable).with_name("towerbus"))


def examine(*words, code, cwd, **variables):
    done = subprocess.run(
        [TOWERBUS, "doctor", "--json", *words],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert not done.stderr
    found = json.loads(done.stdout)
    assert all(mends(found)), found
    assert "see there" not in done.stdout
    return found


def mends(found):
    return [finding["mend"] for finding in found if finding["level"] != "ok"]


def texts(found, level):
    return [f"{finding['check']}: {finding['text']}" for finding in found if finding["level"] == level]


@pytest.fixture
def installed(vhost, tmp_path):
    """A vhost in which a worker runs."""
    with running_worker(tmp_path, vhost) as worker:
        worker.await_log("fence_written")
        yield vhost


def channel_of(url):
    return pika.BlockingConnection(pika.URLParameters(url)).channel()


def test_all_is_well(broker, installed, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"k" * 40)
    key.chmod(0o600)
    words = ["--bus", installed, "--management", broker.management_url, "--window", "60"]
    found = []

    def both_seen():
        # The management API hears of a consumer within some seconds.
        found[:] = examine(*words, code=0, cwd=tmp_path, TOWERBUS_AUTH=f"jwt:{key}")
        return any("2 workers are connected: one is active" in text for text in texts(found, "ok"))

    with running_worker(tmp_path, installed, name="standby") as standby:
        standby.await_log("worker_standby")
        wait_for(both_seen, 30, "both workers")
    checks = {finding["check"] for finding in found}
    assert checks >= {"configuration", "limits", "broker", "version", "objects", "intake", "retention", "publishing"}
    assert checks >= {"nodes", "clock", "replicas", "blocked"}
    assert not texts(found, "error") + texts(found, "warning")


def test_what_people_get_is_the_same_in_words(installed, tmp_path):
    done = subprocess.run(
        [TOWERBUS, "doctor"],
        cwd=tmp_path,
        env=environment(TOWERBUS_BUS=installed),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "ok      objects: all six of towerbus are there" in done.stdout
    assert "note    management: nodes, copies, standby workers, alarms and clock not looked at" in done.stdout
    assert "-> enable rabbitmq_management" in done.stdout
    assert "a worker is active" in done.stdout


LOGINS = {
    "tb:wrong": "the login of user 'tb' is refused",
    "plain:plain": "user 'plain' lacks the tag monitoring",
    "half:half": "user 'half' lacks the tag monitoring",
}


def test_logins_of_the_management_api(broker, installed, tmp_path):
    broker.api("PUT", "/api/users/plain", {"password": "plain", "tags": ""})
    broker.api("PUT", "/api/users/half", {"password": "half", "tags": "management"})
    for login, words in LOGINS.items():
        url = broker.management_url.replace("tb:tb", login)
        found = examine("--bus", installed, "--management", url, code=0, cwd=tmp_path)
        (note,) = [finding for finding in found if finding["check"] == "management"]
        assert words in note["text"]
        assert note["mend"]
    for name in ("plain", "half"):
        broker.api("DELETE", f"/api/users/{name}")


def test_an_empty_vhost_and_what_the_doctor_leaves_behind(vhost, broker, tmp_path):
    found = examine("--bus", vhost, "--management", broker.management_url, code=1, cwd=tmp_path)
    assert not texts(found, "note"), "what is missing is said once"
    (missing,) = texts(found, "error")
    assert missing.startswith("objects: missing: towerbus, towerbus.direct")
    mends = [finding["mend"] for finding in found if finding["level"] == "error"]
    assert mends == ["start a worker, which makes it: twistd towerbus-worker"]
    assert broker.queues(vhost) == {}


def test_objects_that_differ(installed, tmp_path):
    found = examine("--bus", installed, code=1, cwd=tmp_path, TOWERBUS_LOG_MAX_AGE="60")
    assert any("queue towerbus.log: x-max-age is '86400s', wanted is '60s'" in text for text in texts(found, "error"))
    channel = channel_of(installed)
    channel.exchange_delete("towerbus.unrouted")
    channel.exchange_declare("towerbus.unrouted", "direct", durable=True)
    channel.connection.close()
    found = examine("--bus", installed, code=1, cwd=tmp_path)
    assert any("towerbus.unrouted" in text and "type" in text for text in texts(found, "error"))


def test_a_promise_that_the_log_can_not_keep(installed, tmp_path):
    found = examine("--bus", installed, "--window", "90000", code=1, cwd=tmp_path)
    assert texts(found, "error") == ["retention: the log keeps 86400 s, promised are 90000 s"]


def test_dead_messages(installed, tmp_path):
    channel = channel_of(installed)
    channel.confirm_delivery()
    channel.basic_publish("towerbus.direct", "dead", b"?")
    channel.connection.close()
    found = examine("--bus", installed, code=0, cwd=tmp_path)
    assert any("dead: 1 messages could not be taken" in text for text in texts(found, "warning"))


def test_an_alarm(own_broker, tmp_path):
    url = own_broker.vhost()
    with running_worker(tmp_path, url) as worker:
        worker.await_log("fence_written")
        own_broker.set_alarm("disk")
        wait_for(lambda: own_broker.api("GET", "/api/nodes")[0].get("disk_free_alarm"), 20, "the alarm")
        found = examine("--bus", url, "--management", own_broker.management_url, code=1, cwd=tmp_path)
    errors = texts(found, "error")
    assert any("publishing: the intake does not confirm: it is blocked by an alarm" in text for text in errors)
    assert any("low on disk" in text for text in errors)


def test_a_user_without_permissions(broker, installed, tmp_path):
    name = installed.rpartition("/")[2]
    broker.api("PUT", "/api/users/poor", {"password": "poor", "tags": ""})
    broker.api("PUT", f"/api/permissions/{name}/poor", {"configure": "", "write": "", "read": ".*"})
    found = examine("--bus", installed.replace("tb:tb@", "poor:poor@"), code=1, cwd=tmp_path)
    assert any(
        "permissions: we may not configure towerbus, towerbus.direct" in text for text in texts(found, "warning")
    )
    (refused,) = texts(found, "error")
    assert "permissions: towerbus.direct" in refused
    broker.api("DELETE", "/api/users/poor")


def test_the_file_of_the_embedded_log_while_it_is_written(tmp_path):
    path = tmp_path / "log.db"
    clock = AgeClock(time.monotonic, time.time, 86400.0)
    writer = Writer(path, clock, max_bytes=10_000_000, tail_bytes=1_000_000)
    writer.open()
    found = examine("--bus", f"sqlite:{path}", code=0, cwd=tmp_path)
    assert {finding["check"] for finding in found} >= {"configuration", "disk", "integrity", "retention"}
    assert not texts(found, "warning") + texts(found, "error")
    writer.close()
    path.write_bytes(b"junk" * 2000)
    (text,) = texts(examine("--bus", f"sqlite:{path}", code=1, cwd=tmp_path), "error")
    assert "no database" in text
    (text,) = texts(examine("--bus", "sqlite:", code=1, cwd=tmp_path), "error")
    assert "wanted sqlite:PATH" in text


WRONG = {
    "amqp://127.0.0.1:1/": ["broker", "refused"],
    "amqp://tb:SECRET@127.0.0.1:1/": ["broker", "refused"],
    "amqp://x?foo=1": ["configuration", "foo"],
    "nonsense": ["configuration", "nonsense"],
    "amqp://x/a/b": ["configuration", "%2F"],
}


@pytest.mark.parametrize("url", WRONG)
def test_a_bus_that_can_not_be_reached_or_understood(url, tmp_path):
    found = examine("--bus", url, code=1, cwd=tmp_path)
    (text,) = texts(found, "error")
    for part in WRONG[url]:
        assert part in text
    assert "SECRET" not in str(found)


def test_wrong_password_and_wrong_vhost(vhost, tmp_path):
    (text,) = texts(examine("--bus", vhost.replace("tb:tb@", "tb:wrong@"), code=1, cwd=tmp_path), "error")
    assert "the login of user 'tb' is refused" in text
    assert "wrong" not in text
    (text,) = texts(examine("--bus", vhost + "x", code=1, cwd=tmp_path), "error")
    assert "make the virtual host" in text


def test_a_configuration_that_can_not_be_carried_out(tmp_path):
    path = tmp_path / "towerbus.toml"
    path.write_text("outbox = 'many'")
    (text,) = texts(examine("--config", str(path), code=1, cwd=tmp_path), "error")
    assert "towerbus.toml: outbox: got 'many'" in text
    path.write_text("auth = ['jwt:/nowhere/key']")
    (text,) = texts(examine("--config", str(path), code=1, cwd=tmp_path), "error")
    assert "/nowhere/key" in text
    path.write_text("bus = 'memory:'")
    assert not texts(examine("--config", str(path), code=0, cwd=tmp_path), "error")
