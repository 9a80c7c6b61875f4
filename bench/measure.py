"""How is measured: the turns of one server, and the connections of one server at a time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from generator import Generator
from peers.peer import SIZE, Peer, Running

FIRST_CLIENTS = 50
"""Clients that come before the others are counted: what a server makes once is not theirs."""
MOST_CLIENTS = 19_500
"""Of one load generator, and of a server that may have 20,000 files open."""
REST = 0.5
"""Seconds that a server gets for what it puts off."""
BURST = 10
PACE = 200
"""Events a second where the time from emit to receipt is measured."""
PACED = 400
"""How many of these."""
TURNS = 2
"""How often the servers take turns in each kind of load: what else the machine does meanwhile is the same for all."""
WARM = 2
"""Before each turn comes one so-manieth of it that does not count: the turns of others have emptied the caches, and how
soon they fill again is no matter of these loads (`pace` has it)."""
BATCHES = 5
"""So many times is looked what some connections cost: one look is off by a third."""
BESIDE, WITHIN = "_beside_", "_within_"
"""Stand in the names of figures: of processes that take part and don't count, and of single ones of those that do."""
FAULTS = ("lost", "repeated", "disordered", "damaged", "strays", "gone", "refused")
"""What a run must have none of, as the load generator names it."""


@dataclass(frozen=True)
class Load:
    """How much is asked of a server.

    Attributes:
        clients: Clients that get the events.
        events: Events one by one; bursts have three times as many.
        idle: Clients that are connected for the memory and handshake figures.
        seconds: How long a turn of a load with a rate of its own lasts.
        crowd: Idle clients beside those that get the events, where that is the load.
        many: Clients where very many are the load.
    """

    clients: int
    events: int
    idle: int
    seconds: float
    crowd: int
    many: int


@dataclass
class Figures:
    """What one server came to in one round.

    Attributes:
        values: Figures by name: `w1_us`, `b10_us`, `paced_p50_ms`, `handshake_us`, `subscribe_us`, `idle_kb`, ...
        faults: What was wrong with deliveries, in words.
    """

    values: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@contextmanager
def started(peer: Peer, size: int = SIZE, repeat: int = 1, way: str = "") -> Iterator[tuple[Running, Generator]]:
    """A fresh server with its load generator; `size`, `repeat` and `way` as in `Contest`."""
    with tempfile.TemporaryDirectory(prefix="towerbus-bench-") as directory:
        running = peer.ways.get(way, peer.start)(Path(directory))
        try:
            with Generator(running.options(size, repeat)) as generator:
                yield running, generator
        finally:
            running.stop()


def alone(peer: Peer, load: Load) -> Figures:
    """What is measured of one server while no other runs.

    The time from emit to receipt at a moderate rate; the memory of an idle client, and the CPU of its handshake
    (with the token check) and of its subscription.
    """
    figures = Figures()
    with started(peer) as (running, generator):
        generator.connect(FIRST_CLIENTS)
        generator.subscribe(FIRST_CLIENTS)
        time.sleep(REST)
        if peer.events >= 1:
            generator.ask(f"run 1 {PACE}")
            answer = generator.ask(f"pace {PACE} {PACED}")
            figures.faults.extend(_faults(answer, f"{PACE} a second"))
            figures.values |= {"paced_p50_ms": answer["p50_ms"], "paced_p99_ms": answer["p99_ms"]}
            time.sleep(REST)
        kb = running.kb()
        shaken, subscribed = [], []
        for number in range(1, BATCHES + 1):
            clients = FIRST_CLIENTS + load.idle * number // BATCHES
            shaken.append(_cost(running, lambda clients=clients: generator.connect(clients)))
            subscribed.append(_cost(running, lambda clients=clients: generator.subscribe(clients)))
        figures.values["handshake_us"] = median(shaken) / load.idle * BATCHES * 1e6
        figures.values["subscribe_us"] = median(subscribed) / load.idle * BATCHES * 1e6
        time.sleep(REST)
        figures.values["idle_kb"] = (running.kb() - kb) / load.idle
    return figures


def _cost(running: Running, do: Callable[[], None]) -> float:
    """Seconds of the server's CPU for something, with what it puts off."""
    before = running.cpu_seconds()
    do()
    time.sleep(REST / 2)
    return running.cpu_seconds() - before


class Contest:
    """One server's part in a round.

    Args:
        peer: The server.
        load: How much is asked of it.
        size: Bytes of an event's text.
        repeat: How many own topics a client has, where it has any.
        way: The load's name, if its servers are started otherwise than for the others.
    """

    def __init__(self, peer: Peer, load: Load, size: int = SIZE, repeat: int = 1, way: str = "") -> None:
        self.load = load
        self.share = peer.events
        self.events = max(BURST, round(load.events * peer.events))
        self.peer, self._size, self._repeat, self._way = peer, size, repeat, way
        self._turns: dict[str, list[float]] = {}
        self.faults: list[str] = []

    def prepare(self, stack: ExitStack, gather: Callable[[Generator, Load], None]) -> None:
        """Start it, have its clients gathered and warm it up."""
        try:
            self.running, self.generator = stack.enter_context(started(self.peer, self._size, self._repeat, self._way))
            gather(self.generator, self.load)
            for burst in (1, BURST):
                self.ask(f"run {burst} {max(BURST, self.events // 10 // BURST * BURST)}", "warm-up")
        except (RuntimeError, OSError) as error:
            self.faults.append(str(error))

    def turn(self, name: str, command: str) -> None:
        """Take a part of the load; none any more after a fault.

        Args:
            name: What the figures' names begin with.
            command: For the load generator.
        """
        self.attempt(name, lambda name: self._measure(name, command))

    def run(self, name: str, burst: int) -> None:
        """Take a turn with events one by one, or in bursts, warm from some that do not count."""
        # Bursts have three times as many events, where that does not take minutes.
        events = self.events * 3 if burst > 1 and self.events > 50 else self.events
        bursts = max(1, events // TURNS // burst)
        self.attempt(name, lambda name: self.ask(f"run {burst} {max(1, bursts // WARM) * burst}", f"{name}, warm-up"))
        self.turn(name, f"run {burst} {bursts * burst}")

    def figures(self) -> Figures:
        """What it came to: the medians of its turns."""
        return Figures({name: median(values) for name, values in self._turns.items()}, self.faults)

    def attempt(self, name: str, measure: Callable[[str], object]) -> None:
        """Have something measured; nothing any more after a fault.

        Args:
            name: What the figures' names begin with.
            measure: Gets the name.
        """
        if self.faults:
            return
        try:
            measure(name)
        except (RuntimeError, OSError) as error:
            self.faults.append(f"{name}: {error}")

    def storm(self, name: str, missed: int, rate: float, window: int) -> None:
        """Have all clients cut and come back.

        Args:
            name: What the figures' names begin with.
            missed: Events that happen while nobody is there.
            rate: Events a second that go on while they come back.
            window: Clients that come back at once.
        """
        self.running.begin_peak()
        cpu = self.running.cpu_seconds()
        answer = self.ask(f"storm {missed} {rate} {window}", name)
        cpu = self.running.cpu_seconds() - cpu
        if answer["back"] != answer["cut"]:
            self.faults.append(f"{name}: {answer['back']} of {answer['cut']} clients came back")
        clients = max(1, answer["cut"])
        self.note(f"{name}_client_us", cpu / clients * 1e6)
        self.note(f"{name}_deliveries", answer["deliveries"] / clients)
        self.note(f"{name}_served_ms", answer["served_ms"])
        self.note(f"{name}_missed", answer["missed"] / clients)
        self.note(f"{name}_told_percent", 100 * answer["told"] / clients)
        self.note(f"{name}_peak_mb", self.running.peak_kb() / 1024)

    def note(self, figure: str, value: float) -> None:
        """Keep one value of a figure."""
        self._turns.setdefault(figure, []).append(value)

    def ask(self, command: str, what: str) -> dict[str, Any]:
        """Have the load generator do something, and keep what was wrong."""
        answer = self.generator.ask(command)
        self.faults.extend(_faults(answer, what))
        return answer

    def _measure(self, name: str, command: str) -> None:
        apart = {
            f"{name}{where}{other}_us": process
            for where, some in ((BESIDE, self.running.beside), (WITHIN, self.running.within))
            for other, process in some.items()
        }
        before = {figure: process.cpu_seconds() for figure, process in apart.items()}
        cpu = self.running.cpu_seconds()
        answer = self.ask(command, name)
        cpu = self.running.cpu_seconds() - cpu
        number = max(1, answer["deliveries"])
        self.note(f"{name}_us", cpu / number * 1e6)
        self.note(f"{name}_p50_ms", answer["p50_ms"])
        self.note(f"{name}_p99_ms", answer["p99_ms"])
        self.note(f"{name}_per_second", answer["deliveries"] / max(answer["seconds"], 1e-9))
        self.note(f"{name}_wire", answer["wire"] / number)
        self.note(f"{name}_kept_percent", 100 * answer["events"] / max(answer["planned"], 1))
        for figure, process in apart.items():
            self.note(figure, (process.cpu_seconds() - before[figure]) / number * 1e6)


def _faults(answer: Mapping[str, Any], what: str) -> list[str]:
    return [f"{what}: {answer[fault]} {fault}" for fault in FAULTS if answer[fault]]


def truth(peer: Peer, clients: int, wanted: int) -> tuple[int, float, list[str]]:
    """Deliver many events, a third of the deliveries each singly, in tens and in hundreds.

    Returns: Deliveries, the server's CPU seconds, faults.
    """
    faults: list[str] = []
    done = 0
    with started(peer) as (running, generator):
        generator.connect(clients)
        generator.subscribe(clients)
        cpu = running.cpu_seconds()
        for burst in (100, 10, 1):
            share = -(-wanted // clients // 3 // burst) * burst if burst > 1 else -(-(wanted - done) // clients)
            answer = generator.ask(f"run {burst} {share}")
            faults.extend(_faults(answer, f"bursts of {burst}"))
            done += answer["deliveries"]
        return done, running.cpu_seconds() - cpu, faults
