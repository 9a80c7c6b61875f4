"""What is measured of one server: connections in one run of it, deliveries in another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generator import Generator
from peers.peer import Peer, Running

FIRST_CLIENTS = 50
"""Clients that come before the others are counted: what a server makes once is not theirs."""
REST = 0.5
"""Seconds that a server gets for what it puts off."""
BURST = 10
FAULTS = ("lost", "repeated", "disordered", "damaged", "strays", "gone", "refused")
"""What a run must have none of, as load.c names it."""


@dataclass(frozen=True)
class Load:
    """How much is asked of a server.

    Attributes:
        clients: Clients that get the events.
        events: Events one by one; bursts have five times as many.
        idle: Clients that are connected for the memory and handshake figures.
    """

    clients: int
    events: int
    idle: int


@dataclass
class Figures:
    """What one server came to in one round.

    Attributes:
        values: Figures by name: `w1_us`, `b10_us`, `handshake_us`, `subscribe_us`, `idle_kb`, ...
        faults: What was wrong with deliveries, in words.
    """

    values: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@contextmanager
def started(peer: Peer) -> Iterator[tuple[Running, Generator]]:
    """A fresh server with its load generator."""
    with tempfile.TemporaryDirectory(prefix="towerbus-bench-") as directory:
        running = peer.start(Path(directory))
        try:
            with Generator(running.load) as generator:
                yield running, generator
        finally:
            running.stop()


def connections(peer: Peer, load: Load) -> Figures:
    """Memory of an idle client; CPU of its handshake (with the token check) and of its subscription."""
    figures = Figures()
    with started(peer) as (running, generator):
        generator.connect(FIRST_CLIENTS)
        generator.subscribe(FIRST_CLIENTS)
        time.sleep(REST)
        cpu, kb = running.cpu_seconds(), running.kb()
        generator.connect(FIRST_CLIENTS + load.idle)
        time.sleep(REST)
        shaken = running.cpu_seconds()
        generator.subscribe(FIRST_CLIENTS + load.idle)
        time.sleep(REST)
        figures.values["handshake_us"] = (shaken - cpu) / load.idle * 1e6
        figures.values["subscribe_us"] = (running.cpu_seconds() - shaken) / load.idle * 1e6
        figures.values["idle_kb"] = (running.kb() - kb) / load.idle
    return figures


def deliveries(peer: Peer, load: Load) -> Figures:
    """CPU of a delivered event, one at a time (w1) and in bursts of ten (b10)."""
    figures = Figures()
    events = max(BURST, round(load.events * peer.events))
    with started(peer) as (running, generator):
        generator.connect(load.clients)
        generator.subscribe(load.clients)
        for burst in (1, BURST):  # warm up
            _checked(generator.ask(f"run {burst} {max(BURST, events // 10 // BURST * BURST)}"), "warm-up", figures)
        for name, burst, count in (("w1", 1, events), (f"b{BURST}", BURST, _bursts(events))):
            if not figures.faults:
                _phase(running, generator, (name, burst, count), figures)
    return figures


def _bursts(events: int) -> int:
    """Five times as many, where that does not take minutes, and whole bursts."""
    return events * 5 // BURST * BURST if events > 50 else events // BURST * BURST  # noqa: PLR2004


def _phase(running: Running, generator: Generator, phase: tuple[str, int, int], figures: Figures) -> None:
    name, burst, count = phase
    beside = {other: process.cpu_seconds() for other, process in running.beside.items()}
    cpu = running.cpu_seconds()
    answer = generator.ask(f"run {burst} {count}")
    cpu = running.cpu_seconds() - cpu
    _checked(answer, name, figures)
    number = max(1, answer["deliveries"])
    figures.values[f"{name}_us"] = cpu / number * 1e6
    figures.values[f"{name}_p50_ms"], figures.values[f"{name}_p99_ms"] = answer["p50_ms"], answer["p99_ms"]
    figures.values[f"{name}_per_second"] = answer["deliveries"] / max(answer["seconds"], 1e-9)
    for other, process in running.beside.items():
        figures.values[f"{name}_{other}_us"] = (process.cpu_seconds() - beside[other]) / number * 1e6


def _checked(answer: dict[str, Any], what: str, figures: Figures) -> None:
    figures.faults.extend(f"{what}: {answer[fault]} {fault}" for fault in FAULTS if answer[fault])


def truth(peer: Peer, clients: int, wanted: int) -> tuple[int, float, list[str]]:
    """Deliver many events, a third of the deliveries each singly, in tens and in hundreds.

    Returns: Deliveries, the server's CPU seconds, faults.
    """
    figures, done = Figures(), 0
    with started(peer) as (running, generator):
        generator.connect(clients)
        generator.subscribe(clients)
        cpu = running.cpu_seconds()
        for burst in (100, 10, 1):
            share = -(-wanted // clients // 3 // burst) * burst if burst > 1 else -(-(wanted - done) // clients)
            answer = generator.ask(f"run {burst} {share}")
            _checked(answer, f"bursts of {burst}", figures)
            done += answer["deliveries"]
        return done, running.cpu_seconds() - cpu, figures.faults
