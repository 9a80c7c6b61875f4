"""Run a playbook, and put the runner's raw events into a RabbitMQ queue, as Tower's runners do.

A bridge with the source `amqp` and the shape `runner` (callback.toml) takes them from there to Tower's clients. What is
published is confirmed by the broker before the playbook goes on; while the broker is away, the playbook waits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible_runner
import pika
from pika.exceptions import AMQPError

SITE = Path(__file__).parents[1] / "ansible" / "project" / "site.yml"
INVENTORY = 'localhost ansible_connection=local ansible_python_interpreter="{{ ansible_playbook_python }}"\n'
PAUSE = 0.5
"""Seconds before a message is published again that was not confirmed."""


class CallbackQueue:
    """Publishes to a queue until each message is confirmed. One that was in doubt may be there twice.

    Args:
        url: The broker.
        queue: The queue; it is made where it is missing.
    """

    def __init__(self, url: str, queue: str) -> None:
        self._url = url
        self._queue = queue
        self._connection: pika.BlockingConnection | None = None

    def put(self, message: Mapping[str, Any], id_: str) -> None:
        """Publish a message, however long it takes."""
        body = json.dumps(message).encode()
        properties = pika.BasicProperties(message_id=id_, delivery_mode=2, content_type="application/json")
        while True:
            try:
                self._channel().basic_publish("", self._queue, body, properties, mandatory=True)
            except (AMQPError, OSError) as error:
                print(f"not confirmed yet: {error!r}", file=sys.stderr)
                self._connection = None
                time.sleep(PAUSE)
            else:
                return

    def _channel(self) -> Any:
        if self._connection is None:
            self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
            self._opened = self._connection.channel()
            self._opened.queue_declare(self._queue, durable=True, arguments={"x-queue-type": "quorum"})
            self._opened.confirm_delivery()
        return self._opened


def main() -> int:
    """Run it; the exit code is 0 when the playbook was successful."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="amqp://guest:guest@localhost/", help="the broker [%(default)s]")
    parser.add_argument("--queue", default="callback_tasks", help="the queue [%(default)s]")
    parser.add_argument("--job-id", type=int, default=42, help="the job's id [%(default)s]")
    parser.add_argument("--playbook", type=Path, default=SITE, help="the playbook to run [%(default)s]")
    arguments = parser.parse_args()
    queue, counter = CallbackQueue(arguments.url, arguments.queue), 0

    def event_handler(event: dict[str, Any]) -> bool:
        nonlocal counter
        counter = event["counter"]
        queue.put({**event, "job_id": arguments.job_id}, f"{event['uuid']}-{counter}")
        return False

    with tempfile.TemporaryDirectory(prefix="towerbus-callback-") as directory:
        Path(directory, "inventory").mkdir()
        Path(directory, "inventory", "hosts").write_text(INVENTORY)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        playbook = arguments.playbook.resolve()
        runner = ansible_runner.run(
            private_data_dir=directory,
            project_dir=str(playbook.parent),
            playbook=playbook.name,
            envvars={"PATH": path, "ANSIBLE_LOCAL_TEMP": directory, "ANSIBLE_REMOTE_TEMP": directory},
            event_handler=event_handler,
        )
    end = {"event": "EOF", "final_counter": counter, "job_id": arguments.job_id}
    queue.put(end, f"{arguments.job_id}-EOF-{counter}")
    return 0 if runner.status == "successful" else 1


if __name__ == "__main__":
    raise SystemExit(main())
