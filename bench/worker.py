"""What the worker costs: how fast it orders a full intake into the log, and how fast the log is read.

    .venv/bin/python bench/worker.py [--events 60000] [--packed 400000]

It starts a RabbitMQ of its own (tests/support) and a real `twistd towerbus-worker`. The intake is filled while no
worker runs; the rate counts from the first record to the last. The worker, the broker and a reader of the log share the
machine with whatever else is on it, so look at the CPU, and at `others`, before believing a rate.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
from processes import Disturbance, cpu_seconds
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from towerbus.amqp.channel import Delivery
from towerbus.amqp.connection import connect
from towerbus.amqp.names import Names
from towerbus.amqp.url import parse
from towerbus.event import event
from towerbus.intake.messages import PACKED, pack
from towerbus.log.packing import unpack

if TYPE_CHECKING:
    from support.broker import Broker

NAMES = Names("towerbus")
IN_MESSAGE = 100
"""Events in a packed message."""


def payload(number: int) -> bytes:
    """A payload of 300 bytes."""
    return b'{"number": %d, "text": "' % number + b"x" * (276 - len(str(number))) + b'"}'


def fill(url: str, count: int, *, packed: bool) -> None:
    """Fill the intake."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        if packed:
            for first in range(0, count, IN_MESSAGE):
                numbers = range(first, first + IN_MESSAGE)
                body = pack([event("jobs", number % 50, payload(number), id=f"p{number:031}") for number in numbers])
                properties = pika.BasicProperties(content_type=PACKED, message_id=f"m{first}", delivery_mode=2)
                channel.basic_publish(NAMES.direct, "intake", body, properties)
        else:
            for number in range(count):
                properties = pika.BasicProperties(
                    message_id=f"s{number:031}", delivery_mode=2, timestamp=int(time.time())
                )
                channel.basic_publish(NAMES.exchange, f"jobs.{number % 50}", payload(number), properties)


def await_intake(node: Broker, url: str, messages: int) -> None:
    """Wait until so many messages are in the intake."""
    while node.queues(url)[NAMES.intake]["messages"] != messages:
        time.sleep(0.1)


def await_events(url: str, count: int) -> tuple[float, float]:
    """Read the log until it has so many events, and return when the first and the last came."""
    first = 0.0
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=100)
        for method, _, body in channel.consume(NAMES.log, arguments={"x-stream-offset": "first"}):
            events = len(unpack(body, 0).events)
            first = first or (time.monotonic() if events else 0.0)
            count -= events
            channel.basic_ack(method.delivery_tag)
            if count <= 0:
                return first, time.monotonic()
    raise AssertionError("the log ended")


def drain(node: Broker, count: int, *, packed: bool) -> tuple[str, str]:
    """Measure a worker that drains a full intake.

    Returns:
        The figures, and the URL of the broker with the full log.
    """
    from support.worker import running_worker

    url = node.vhost("packed" if packed else "single")
    with tempfile.TemporaryDirectory() as place:
        with running_worker(Path(place), url) as maker:
            maker.await_log("worker_active")
            maker.stop()
        fill(url, count, packed=packed)
        await_intake(node, url, count // IN_MESSAGE if packed else count)
        with running_worker(Path(place), url) as worker:
            worker.await_log("worker_standby")
            others, before = Disturbance(), cpu_seconds(worker.process.pid)
            first, last = await_events(url, count)
            cpu = cpu_seconds(worker.process.pid) - before
            worker.stop()
    what = f"packed by {IN_MESSAGE}" if packed else "single JSON"
    rate = f"{count / (last - first):,.0f} events/s, worker {cpu / count * 1e6:.1f} us an event"
    return f"drain, {what:16} {rate}, others {others.share():.0%}", url


async def read(reactor: Any, url: str, count: int) -> None:
    """Measure one consumer that unpacks all of a log, and print the figures."""
    connection = await connect(parse(url), "bench", reactor)
    channel = await connection.channel()
    await channel.limit(200)
    done: Deferred[None] = Deferred()
    left, unacked, records = count, 0, 0
    wall, cpu, others = time.monotonic(), time.process_time(), Disturbance()

    def take(delivery: Delivery) -> None:
        nonlocal left, unacked, records
        left -= len(unpack(delivery.body, 0).events)
        unacked, records = unacked + 1, records + 1
        if unacked == 50:
            unacked = 0
            channel.ack(delivery.tag, multiple=True)
        if not left:
            done.callback(None)

    await channel.consume(NAMES.log, take, arguments={"x-stream-offset": "first"})
    await done
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    await connection.end()
    print(
        f"read, {count / records:.0f} events a record: {count / wall:,.0f} events/s, reader {cpu / count * 1e6:.2f} us "
        f"an event, others {others.share():.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000, help="single JSON messages [%(default)s]")
    parser.add_argument("--packed", type=int, default=400_000, help="events in packed messages [%(default)s]")
    options = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from support.broker import Broker

    with Broker() as node:
        figures, _ = drain(node, options.events, packed=False)
        print(figures)
        count = options.packed // IN_MESSAGE * IN_MESSAGE
        figures, url = drain(node, count, packed=True)
        print(figures)
        react(read, (url, count))


if __name__ == "__main__":
    main()
