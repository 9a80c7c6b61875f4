"""Foreign AMQP clients are heard: what they publish to the topic exchange comes out of the log, by a real worker."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pika
import pytest
from support import intakes
from support.intakes import taken
from support.worker import LogText, running_worker

from towerbus import Emitter

EXAMPLES = Path(__file__).parents[2] / "examples" / "amqp"
SECONDS = 60


@pytest.fixture
def worker(tmp_path, vhost):
    """A worker that is active."""
    with running_worker(tmp_path, vhost) as started:
        started.await_log("worker_active")
        yield started


def run(*words, **variables):
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, env=os.environ | variables)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout.strip()


def test_plain_json_with_a_routing_key_and_an_id_is_an_event(vhost):
    intakes.declare_now(vhost)
    with intakes.channel(vhost) as channel:
        channel.confirm_delivery()
        properties = pika.BasicProperties(message_id="mine", content_type="application/json", timestamp=1_700_000_000)
        channel.basic_publish("towerbus", "jobs.status_changed", b'{"n":  1}', properties)
    ((event,),) = [message.events for message in taken(vhost)]
    assert (event.id, event.topic, event.payload) == ("mine", ("jobs", "status_changed"), b'{"n":  1}')
    assert event.time == 1_700_000_000


def test_the_examples_are_heard_beside_our_own_emitter_and_repeats_are_not(vhost, broker, worker):
    where = urlsplit(vhost)
    admin = f"--host {where.hostname} --port {broker.management_port} --username tb --password tb --vhost {unquote(where.path[1:])}"
    assert shutil.which("rabbitmqadmin"), "it comes with RabbitMQ's management plugin"
    with LogText(vhost) as log, Emitter(vhost) as emitter:
        python = (sys.executable, str(EXAMPLES / "emit.py"))
        made = run(*python, "jobs", "status_changed", '{"status":  "running"}', AMQP_URL=vhost)
        for _ in range(2):
            assert run(*python, "job_events", "42", '{"counter": 1}', "mine", AMQP_URL=vhost) == "mine"
        ours = emitter.emit("jobs", "summary", {"final_counter": 1})
        shell = run(
            str(EXAMPLES / "emit.sh"), "jobs", "status_changed", '{"status": "successful"}', RABBITMQADMIN=admin
        )
        assert log.await_events(4) == [made, "mine", ours, shell]
    assert [event.topic.name for event in log.events] == [
        "jobs-status_changed",
        "job_events-42",
        "jobs-summary",
        "jobs-status_changed",
    ]
    assert log.events[0].payload == b'{"status":  "running"}'
    assert json.loads(log.events[3].payload) == {"status": "successful"}


def test_what_is_no_event_is_put_aside_with_the_reason_and_holds_nothing_up(vhost, worker):
    with LogText(vhost) as log, intakes.channel(vhost) as channel:
        channel.confirm_delivery()
        channel.basic_publish("towerbus", "jobs.x", b"not JSON", pika.BasicProperties(message_id="bad"))
        channel.basic_publish("towerbus", "jobs.x", b'{"n":1}', pika.BasicProperties(message_id="good"))
        assert log.await_events(1) == ["good"]
        _, properties, body = channel.basic_get("towerbus.dead", auto_ack=True)
    assert body == b"not JSON"
    assert any("JSON" in str(value) for value in properties.headers.values())
