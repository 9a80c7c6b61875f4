"""What emitting over AMQP costs: latency at fixed rates, throughput, and CPU for each event.

    .venv/bin/python bench/emitting.py [--seconds 5] [--rates 20,200,2000]

It starts a RabbitMQ of its own (tests/support), without a worker. Events have 300 bytes; a latency is from the call to
its confirmation, p50/p90/p99. Emitter, broker and whatever else there is share the machine: look at `others`, which is
the share of all CPUs that neither of the two has used, before believing a figure.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
from processes import Disturbance, cpu_seconds
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from towerbus import Emitter
from towerbus.amqp.intake import AmqpIntake
from towerbus.amqp.url import parse
from towerbus.event import event

if TYPE_CHECKING:
    from support.broker import Broker


class Measured:
    """CPU and time of a piece of work."""

    def __init__(self, node: Broker) -> None:
        self._node = node.pid
        self._others = Disturbance()
        self._wall, self._cpu, self._broker = time.perf_counter(), time.process_time(), cpu_seconds(self._node)

    def said(self, what: str, count: int, latencies: list[float] | None = None) -> None:
        """Print what so many events took."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        broker = cpu_seconds(self._node) - self._broker
        others = max(0.0, self._others.share() - broker / wall / (os.cpu_count() or 1))
        found = f"{count / wall:>9,.0f}/s"
        if latencies:
            ordered = sorted(latencies)
            found = "/".join(f"{1000 * ordered[int(len(ordered) * part)]:.1f}" for part in (0.5, 0.9, 0.99)) + " ms"
        per_event = f"emitter {cpu / count * 1e6:6.1f} us, broker {broker / count * 1e6:6.1f} us an event"
        print(f"{what:36} {found:>18}  {per_event}, others {others:.0%}", flush=True)


def payload(number: int) -> bytes:
    """A payload of 300 bytes."""
    return b'{"number": %d, "text": "' % number + b"x" * (276 - len(str(number))) + b'"}'


def emptied(url: str) -> None:
    """Empty the intake, so that each measurement finds the same."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_purge("towerbus.intake")


def paced(rate: float, seconds: float, call: Callable[[int], object]) -> int:
    """Call at a rate, from the calling thread; return how often."""
    start = time.perf_counter()
    count = int(rate * seconds)
    for number in range(count):
        time.sleep(max(0.0, start + number / rate - time.perf_counter()))
        call(number)
    return count


def threads(node: Broker, url: str, rates: list[float], seconds: float) -> None:
    """Measure `towerbus.Emitter`."""
    with Emitter(url, timeout=60) as emitter:

        def emit(number: int) -> None:
            begun = time.perf_counter()
            emitter.emit("jobs", number % 50, payload(number))
            latencies.append(time.perf_counter() - begun)

        def busy() -> None:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                emit(0)

        emitter.emit("jobs", "x", payload(0))
        for rate in rates:
            latencies: list[float] = []
            measured = Measured(node)
            measured.said(f"Emitter, one thread, {rate:g}/s", paced(rate, seconds, emit), latencies)
        for count in (1, 10):
            emptied(url)
            latencies, crew = [], [threading.Thread(target=busy) for _ in range(count)]
            measured = Measured(node)
            for each in crew:
                each.start()
            for each in crew:
                each.join()
            measured.said(f"Emitter, threads: {count}", len(latencies))
        emptied(url)
        events = [{"group": "jobs", "type": n % 50, "payload": payload(n)} for n in range(20_000)]
        measured = Measured(node)
        emitter.emit_many(events)
        measured.said("Emitter, emit_many(20,000)", len(events))


async def twisted(reactor: Any, node: Broker, url: str, rates: list[float], seconds: float) -> None:
    """Measure what servers and Twisted programs emit with."""
    intake = AmqpIntake(parse(url), reactor, timeout=60)
    intake.startService()
    await intake.emit([event("jobs", "x", payload(0))])
    for rate in rates:
        count, latencies = int(rate * seconds), []
        done: Deferred[None] = Deferred()
        measured, start = Measured(node), time.perf_counter()
        for number in range(count):
            wait = start + number / rate - time.perf_counter()
            if wait > 0:
                await deferLater(reactor, wait)
            emitted(intake, number, latencies, count, done)
        await done
        measured.said(f"AmqpIntake, {rate:g}/s", count, latencies)
    emptied(url)
    events = [event("jobs", n % 50, payload(n)) for n in range(20_000)]
    measured = Measured(node)
    await gatherResults([intake.emit([each]) for each in events])
    measured.said("AmqpIntake, 20,000 calls at once", len(events))
    await intake.stopService()


def emitted(intake: AmqpIntake, number: int, latencies: list[float], count: int, done: Deferred[None]) -> None:
    """Emit one, and keep nothing of it but its latency: to wait for a list of Deferreds would be measured too."""
    begun = time.perf_counter()

    def told(_: None) -> None:
        latencies.append(time.perf_counter() - begun)
        if len(latencies) == count:
            done.callback(None)

    intake.emit([event("jobs", number % 50, payload(number))]).addCallback(told)


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rates", default="20,200,2000")
    given = parser.parse_args()
    rates = [float(rate) for rate in given.rates.split(",")]
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.broker import Broker
    from support.intakes import declare_now

    with Broker() as node:
        url = node.vhost()
        declare_now(url)
        threads(node, url, rates, given.seconds)
        emptied(url)

        def run(reactor: Any) -> Deferred[None]:
            return Deferred.fromCoroutine(twisted(reactor, node, url, rates, given.seconds))

        react(run)


if __name__ == "__main__":
    main()
