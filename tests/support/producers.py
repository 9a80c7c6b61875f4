"""Producers of plain pika, as any AMQP client: they publish one message after the other, and again what was not confirmed."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pika
from pika.exceptions import AMQPError, NackError

from towerbus.event import Event
from towerbus.intake.messages import PACKED, pack
from towerbus.topics import Topic


@contextmanager
def channel(url):
    """A channel of plain pika, with confirms."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        opened = connection.channel()
        opened.confirm_delivery()
        yield opened


def emit(opened, id_, payload=b'{"n":1}', *, key="jobs.x", **properties):
    """Publish an event as a foreign producer does."""
    given = pika.BasicProperties(**{"message_id": id_, "delivery_mode": 2} | properties)
    opened.basic_publish("towerbus", key, payload, given, mandatory=True)


def emit_packed(opened, ids, *, message_id="packed"):
    """Publish events as our own emitters do."""
    events = [Event(Topic("jobs", "x"), b'{"n":1}', id_, 1700.0) for id_ in ids]
    properties = pika.BasicProperties(content_type=PACKED, message_id=message_id, delivery_mode=2)
    opened.basic_publish("towerbus.direct", "intake", pack(events), properties, mandatory=True)


class Producer:
    """Publishes in a thread until it is stopped; as a context manager it is started and stopped.

    Attributes:
        confirmed: The ids of the events that were confirmed, in order.
    """

    def __init__(self, url, name, *, events=1):
        """Say what it emits.

        Args:
            url: The broker.
            name: What its ids begin with.
            events: How many in each message; more than one are packed.
        """
        self.url, self.name, self.events = url, name, events
        self.confirmed = []
        self._number = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *reason):
        self.stop()

    def stop(self):
        """Stop; all that was published is confirmed then."""
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the producer hangs"

    def _run(self):
        while not self._done:
            try:
                with channel(self.url) as opened:
                    while not self._done:
                        self._publish(opened)
            except (AMQPError, OSError):
                time.sleep(0.05)

    @property
    def _done(self):
        # What was begun is confirmed before the end.
        return self._stopped.is_set() and len(self.confirmed) == self._number

    def _publish(self, opened):
        self._number = max(self._number, len(self.confirmed) + self.events)
        ids = [f"{self.name}-{number}" for number in range(len(self.confirmed), self._number)]
        try:
            if self.events > 1:
                emit_packed(opened, ids, message_id=ids[0])
            else:
                emit(opened, ids[0])
        except NackError:
            time.sleep(0.01)
        else:
            self.confirmed.extend(ids)
