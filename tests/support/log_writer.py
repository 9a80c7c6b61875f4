"""Writes a log into a stream without a worker: with plain pika, so that it can also write what no worker would."""

from __future__ import annotations

import contextlib
import secrets
import struct
import time

import pika
import pika.data

from towerbus.event import Event
from towerbus.log.packing import pack
from towerbus.log.record import Record
from towerbus.topics import Topic, topic

ARGUMENTS = {"x-queue-type": "stream", "x-max-length-bytes": 50_000_000, "x-stream-max-segment-size-bytes": 5_000_000}
TOGETHER = 50
"""Records that are confirmed together."""
PERSISTENT = pika.BasicProperties(delivery_mode=2)
JOBS = topic("jobs", "status_changed")


def numbered(first, count=1, *, size=0, address=JOBS):
    """Events with numbers in them."""
    filling = b"x" * size
    return tuple(
        Event(Topic(*address), b'{"n":%d,"x":"%s"}' % (number, filling), f"e{number}", time.time())
        for number in range(first, first + count)
    )


class LogWriter:
    """One writer, on a connection of its own. All calls block until the broker has confirmed.

    Args:
        url: The broker's virtual host.
        term: The first term.
        arguments: Of the stream, beside its type.
    """

    def __init__(self, url, *, prefix="towerbus", term=100, **arguments):
        self.url, self.stream = url, f"{prefix}.log"
        self.epoch, self.term = secrets.token_hex(4), term
        self.arguments = ARGUMENTS | arguments
        self.connection = None
        self.connect()

    def connect(self):
        """Connect, also again."""
        self.close()
        self.connection = pika.BlockingConnection(pika.URLParameters(self.url))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self._bulk = self.connection.channel()

    def close(self):
        """End the connection, whatever became of it."""
        if self.connection is not None:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.close()

    def declare(self):
        """Make the stream."""
        self.channel.queue_declare(self.stream, durable=True, arguments=self.arguments)
        return self

    def delete(self):
        """Delete the stream."""
        self.channel.queue_delete(self.stream)

    def anew(self, *, fence=True):
        """Delete the stream, make it again, and begin another log in it."""
        self.delete()
        self.declare()
        self.epoch = secrets.token_hex(4)
        self.term = 1
        if fence:
            self.fence()

    def fence(self, term=None):
        """Write a fence."""
        self.term = self.term if term is None else term
        self.write()

    def write(self, *events, term=None, epoch=None):
        """Write a record of events."""
        self.raw(self._packed(events, term, epoch))

    def raw(self, body):
        """Write anything."""
        self.channel.basic_publish("", self.stream, body, PERSISTENT, mandatory=True)

    def cursed(self, body):
        """Write something whose headers pika can't decode."""

        class NoTime(int):
            """A timestamp that no clock has."""

        def encode(pieces, value):
            if isinstance(value, NoTime):
                pieces.append(struct.pack(">cQ", b"T", 10**15))
                return 9
            return encode_value(pieces, value)

        encode_value, pika.data.encode_value = pika.data.encode_value, encode
        try:
            headers = {"at": NoTime()}
            self.channel.basic_publish("", self.stream, body, pika.BasicProperties(headers=headers), mandatory=True)
        finally:
            pika.data.encode_value = encode_value

    def numbers(self, first, count, *, each=1, size=0, address=JOBS):
        """Write records with numbered events; the broker confirms the first one, and then the last of each `TOGETHER`.

        So it is quick. All at once RabbitMQ may write in one piece: one that is larger than a small log, which keeps
        nothing then. For a moment after a restart RabbitMQ confirms and throws away what it could not route: the first
        one is written until it is taken.
        """
        records = [
            self._packed(numbered(number, min(each, first + count - number), size=size, address=address), None, None)
            for number in range(first, first + count, each)
        ]
        self._until_taken(records[0])
        for begin in range(1, len(records), TOGETHER):
            *some, last = records[begin : begin + TOGETHER]
            for record in some:
                self._bulk.basic_publish("", self.stream, record, PERSISTENT)
            self._bulk.queue_declare(self.stream, passive=True)
            self.raw(last)

    def _until_taken(self, body, seconds=20):
        until = time.monotonic() + seconds
        while True:
            try:
                return self.raw(body)
            except pika.exceptions.UnroutableError:
                assert time.monotonic() < until, f"{self.stream} takes nothing"
                time.sleep(0.05)

    def _packed(self, events, term, epoch):
        return pack(Record(epoch or self.epoch, self.term if term is None else term, 0, tuple(events)))


def canary(name, number):
    """What a server emits to see it come back."""
    return Event(Topic("_towerbus", f"canary.{name}"), b'{"n":%d}' % number, secrets.token_hex(8), time.time())
