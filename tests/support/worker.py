"""Runs the real worker as a real process, and reads its log without any code of the worker's."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pika
from support.running import twistd, wait_for

from towerbus.log.packing import NotARecord, unpack

STARTS_WITHIN = 30.0
STOPS_WITHIN = 15.0


@dataclass
class Worker:
    """A `twistd towerbus-worker`.

    Attributes:
        process: The process.
        output: The file with all that it has printed and logged.
    """

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def await_log(self, text: str, times: int = 1, seconds: float = STARTS_WITHIN) -> None:
        """Wait until a text stands in its log, so many times."""

        until = time.monotonic() + seconds
        while self.log.count(text) < times:
            assert self.process.poll() is None, f"ended with {self.process.poll()}:\n{self.log}"
            assert time.monotonic() < until, f"waited {seconds} s for {text!r} x {times} in:\n{self.log}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it as systemd does, and wait."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOPS_WITHIN)
        assert code in {0, -signal.SIGTERM}, f"ended with {code}:\n{self.log}"

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_worker(directory: Path, url: str, *options: str, name: str = "worker") -> Iterator[Worker]:
    """Start a worker; it is ended with the context, if it has not ended before.

    Args:
        directory: Where its output goes.
        url: The broker.
        *options: More options.
        name: Of its output.
    """
    output = directory / f"{name}.log"
    with output.open("wb") as sink:
        process = twistd(directory, sink, "towerbus-worker", *options, TOWERBUS_BUS=url)
    try:
        yield Worker(process, output)
    finally:
        process.kill()
        process.wait()


class LogText:
    """The log, read by an independent reader: plain pika, from the first record.

    Attributes:
        records: All that was read, as (offset, record).
        ids: The ids of the events in it, in order, without what is void.
    """

    def __init__(self, url: str, prefix: str = "towerbus") -> None:
        self.records = []
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.basic_qos(prefetch_count=200)
        self._term = 0
        self.ids: list[str] = []
        self.events = []
        self._channel.basic_consume(f"{prefix}.log", self._take, arguments={"x-stream-offset": "first"})

    def _take(self, channel, method, properties, body):
        channel.basic_ack(method.delivery_tag)
        try:
            record = unpack(body, int(properties.headers["x-stream-offset"]))
        except NotARecord:
            return
        self.records.append(record)
        if record.term >= self._term:
            self._term = record.term
            self.events.extend(record.events)
            self.ids.extend(event.id for event in record.events)

    def await_events(self, count: int, seconds: float = 30.0) -> list[str]:
        """Read until there are so many events, and for a moment more, so that a repeat would show; return their ids."""
        return self._await(lambda: len(self.ids) >= count, seconds, lambda: f"{len(self.ids)} of {count} events")

    def await_records(self, count: int, seconds: float = 30.0):
        """Read until there are so many records, and return them."""
        self._await(lambda: len(self.records) >= count, seconds, lambda: f"{len(self.records)} of {count} records")
        return self.records

    def _await(self, enough, seconds, what):
        def more():
            self._connection.process_data_events(0.05)
            return enough()

        try:
            wait_for(more, seconds, "the log")
        except AssertionError:
            raise AssertionError(f"after {seconds} s: {what()}") from None
        self._connection.process_data_events(0.1)
        return self.ids

    def await_term(self, term: int, seconds: float = 30.0) -> float:
        """Read until there is an event of a term, or of a later one, and say when it came, on the monotonic clock."""
        until = time.monotonic() + seconds
        while not any(record.term >= term and record.events for record in reversed(self.records)):
            assert time.monotonic() < until, f"no event of term {term} after {seconds} s"
            self._connection.process_data_events(0.05)
        return time.monotonic()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.close()
