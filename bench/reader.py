"""How fast one server reads the log: from RabbitMQ's stream through the tail to a fan-out that nobody listens to.

    .venv/bin/python bench/reader.py [--events 1000000] [--in-record 200] [--rounds 3] [--profile]

It starts a RabbitMQ of its own (tests/support). The stream is filled while nothing reads; the time counts from the
reader's first record to its last, and its CPU with it. The broker shares the machine: events per second of CPU is what
one core takes when the broker has another. Others make all figures worse: look at `others` before believing one.
"""

# ruff: noqa: E402, SLF001 - the path comes before what is found by it; the broker's process is the tests' own

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

from processes import Disturbance, cpu_seconds
from support.broker import Broker
from support.log_writer import PERSISTENT, LogWriter
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from towerbus.access import AccessRules
from towerbus.amqp.log import AmqpLog
from towerbus.amqp.url import parse
from towerbus.event import event
from towerbus.hub import dialects
from towerbus.log.packing import pack
from towerbus.log.record import Record
from towerbus.wire.fanout import FanOut
from towerbus.wire.outlet import broadcast

GOAL = 500_000
"""Events per second."""


def packed(writer: LogWriter, size: int) -> bytes:
    """A record of events of 300 bytes, in 50 topics."""
    events = [
        event("jobs", n % 50, b'{"number": %d, "text": "%s"}' % (n, b"x" * (276 - len(str(n)))), id=f"r{n:031}")
        for n in range(size)
    ]
    return pack(Record(writer.epoch, writer.term, 0, tuple(events)))


async def read(reactor: Any, log: AmqpLog, records: int, profile: cProfile.Profile | None) -> tuple[float, float]:
    """Let the log catch up; the seconds from its first record to its last, and the CPU seconds of this process."""
    before = log.records
    log.startService()
    while log.records == before:
        await deferLater(reactor, 0.001, lambda: None)
    if profile is not None:
        profile.enable()
    first, begun, cpu = log.records, time.perf_counter(), time.process_time()
    while log.records < before + records:
        await deferLater(reactor, 0.002, lambda: None)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    if profile is not None:
        profile.disable()
    share = records / (before + records - first)
    await log.stopService()
    return seconds * share, cpu * share


async def measure(reactor: Any, given: argparse.Namespace, broker: Broker) -> None:
    """Fill, read, and print, round after round."""
    profile = cProfile.Profile() if given.profile else None
    figures = []
    for _ in range(given.rounds):
        url = broker.vhost()
        with LogWriter(
            url, **{"x-max-length-bytes": 4_000_000_000, "x-stream-max-segment-size-bytes": 16_777_216}
        ) as writer:
            writer.declare().fence()
            log = AmqpLog(parse(url), reactor)
            lanes = [spoken.lane for spoken in dialects(AccessRules(None, ask=False)).values()]
            log.follow(FanOut(lanes, reactor.callLater, broadcast, lambda log=log: log.tail.end))
            log.startService()
            await log.when_known()
            await log.stopService()
            records, body = given.events // given.in_record, packed(writer, given.in_record)
            bulk = writer.connection.channel()
            for _ in range(records - 1):
                bulk.basic_publish("", writer.stream, body, PERSISTENT)
            bulk.queue_declare(writer.stream, passive=True)
            writer.raw(body)
        disturbance, broker_cpu, wall = Disturbance(), cpu_seconds(broker.pid), time.perf_counter()
        seconds, cpu = await read(reactor, log, records, profile)
        broker_cpu, wall = cpu_seconds(broker.pid) - broker_cpu, time.perf_counter() - wall
        others = max(0.0, disturbance.share() - broker_cpu / wall / (os.cpu_count() or 1))
        events = records * given.in_record
        figures.append((events / seconds, events / cpu))
        print(
            f"{events:,} events: {events / seconds:,.0f} per second; CPU of each: {cpu / events * 1e6:.2f} us, the "
            f"broker's {broker_cpu / events * 1e6:.2f} us; others: {others:.0%} of the machine",
            flush=True,
        )
        broker.drop_vhost(url)
    wall, core = (statistics.median(column) for column in zip(*figures, strict=True))
    print(f"median: {wall:,.0f} events per second, {core:,.0f} per second of CPU; the goal is {GOAL:,}")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--in-record", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="where the time goes; the figures are wrong then")
    given = parser.parse_args()
    with Broker() as broker:
        react(lambda reactor: Deferred.fromCoroutine(measure(reactor, given, broker)))


if __name__ == "__main__":
    main()
