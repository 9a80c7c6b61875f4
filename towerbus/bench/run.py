"""A run of the bench: clients come, events are emitted, and every one is accounted for."""

from __future__ import annotations

import secrets
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from towerbus.bench.board import Board
from towerbus.bench.content import Content
from towerbus.bench.crowd import Crowd
from towerbus.bench.crowds import Crowds
from towerbus.bench.interrupts import Interrupted, Interrupts
from towerbus.bench.latencies import Latencies
from towerbus.bench.ledger import CHANGED, UNCONFIRMED, Faults
from towerbus.bench.loads import Name, Role, Shape
from towerbus.bench.machine import Cost, Watched, cost
from towerbus.bench.places import unlike
from towerbus.bench.publisher import Publisher
from towerbus.bench.target import Target
from towerbus.errors import NotConfirmed, PeerError, TowerbusError
from towerbus.posting import EmitRefusedError

Advance = Callable[[str, int, int], None]
"""Is told what is going on, how far it is, and how far it goes."""
FIRST_CLIENTS = 50
"""Clients that come before the others are counted: what a server makes once is not theirs."""
REST = 0.25
"""Seconds that a server gets for what it puts off, before it is looked at."""
MAX_BATCH = 1000
"""Events in a request, at the most, where the rate is fixed."""
MAX_BATCH_BYTES = 8 * 1024 * 1024
_WARM_UP_BURST = 10
_SMALLER = "; give a lower --size or --burst, or let the server take more"
CUTS = 2
"""How often a storm cuts all clients: after equal parts of the events."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be done.

    Attributes:
        target: Where the clients connect.
        http: Where events are emitted.
        token: A token with grants to emit.
        tls: How to talk TLS.
        shape: The load.
        events: How many events count.
        warm_up: How many come before.
        rate: Events a second; None where the next come when all clients have the last.
        burst: Events at once, where no rate is given.
        size: Bytes in a payload.
        processes: Processes with clients.
        window: Handshakes under way at once, in each.
        period: Seconds between the steps of a client (`navigation`).
        slow_rate: Bytes a second that a slow client reads.
        patience: Seconds without progress after which the run is given up; an emit gets no more of them.
        parts: The processes of the system under test.
    """

    target: Target
    http: str
    token: str = field(repr=False)
    tls: ssl.SSLContext
    shape: Shape
    events: int
    warm_up: int
    rate: float | None
    burst: int
    size: int
    processes: int
    window: int
    period: float
    slow_rate: int
    patience: float
    parts: Sequence[Watched]


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        faults: What was untrue.
        cut_short: Why not all was done that was planned; empty where it was.
        emitted: Events that were emitted, the warm-up's too.
        receipts: From emit to receipt, for each delivery.
        last: From emit to the last client's receipt, for each event.
        returns: From a cut until a client has caught up.
        figures: Deliveries that count, and what else was counted.
        seconds: From the first emit that counts to the last receipt.
        late: Seconds by which the emitting fell behind the rate, at the most.
        retried: Emits that had to be tried again.
        costs: Of each part of the system: before the clients, when they are connected, when they are subscribed,
            before what counts, and after it.
        counted: Clients between the first two of these.
        cpu: Seconds of CPU of the processes with the clients, while it counted.
        elapsed: Seconds that this was, in all of them together.
    """

    faults: Faults = field(default_factory=Faults)
    cut_short: str = ""
    emitted: int = 0
    receipts: Latencies = field(default_factory=Latencies)
    last: Latencies = field(default_factory=Latencies)
    returns: Latencies = field(default_factory=Latencies)
    figures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    late: float = 0.0
    retried: int = 0
    costs: list[list[Cost]] = field(default_factory=list)
    counted: int = 0
    cpu: float = 0.0
    elapsed: float = 0.0


class Run:
    """One run.

    Args:
        wish: What is to be done.
        advance: Is told how far it is.
        interrupts: What may end it.
    """

    def __init__(self, wish: Wish, advance: Advance, interrupts: Interrupts) -> None:
        self._wish, self._advance, self._interrupts = wish, advance, interrupts
        self._total = wish.warm_up + wish.events
        self._schedule = wish.shape.schedule(self._total)
        self._content = Content(secrets.token_hex(4), wish.size)
        self._board = Board(self._total, wish.processes)
        self._publisher = Publisher(wish.http, wish.token, self._schedule, self._content, wish.tls, wish.patience)
        self._audiences = [self._audience(place) for place in range(wish.processes)]
        self._doing = "no client had come"
        self.outcome = Outcome()

    def go(self) -> Outcome:
        """Do it. What a signal ends while events go out is accounted for up to there.

        Raises:
            TowerbusError: It can't be done: the server can't be reached, or refuses what is needed.
            Interrupted: A signal came before any event was to be emitted; the text says how far it was.
        """
        wish, outcome = self._wish, self.outcome
        with Crowds(self._board, self._crowd, wish.processes, wish.patience) as crowds, closing(self._publisher):
            try:
                with self._interrupts.ending():
                    self._publisher.check()
                    self._gather(crowds)
            except Interrupted:
                raise Interrupted(f"nothing was measured; {self._doing}") from None
            self._until_interrupted(lambda: self._warm_up(crowds))
            before = crowds.ask("measure", wish.warm_up)
            self._look()
            if not outcome.cut_short:
                self._until_interrupted(lambda: self._emit(crowds))
            if wish.rate is None:
                self._look()
            accounts = crowds.ask("finish", outcome.emitted, bool(outcome.cut_short), progress=self._account)
            if wish.rate is not None:
                self._look()
        outcome.cpu = sum(account["cpu"] - cpu for account, (cpu, _) in zip(accounts, before, strict=True))
        outcome.elapsed = sum(account["at"] - at for account, (_, at) in zip(accounts, before, strict=True))
        outcome.retried = self._publisher.retried
        self._sum_up(accounts)
        return outcome

    def _until_interrupted(self, emit: Callable[[], None]) -> None:
        try:
            with self._interrupts.ending():
                emit()
        except Interrupted:
            self._cut_short(f"interrupted ({self._interrupts.name})")

    def _account(self) -> None:
        """All is emitted, and the clients have yet to get some of it."""
        self._advance("accounting", 0, 0)
        if self._interrupts.signal is not None:
            self._board.hurried[0] = 1
            self._cut_short(f"interrupted ({self._interrupts.name}) while the last events were waited for")

    def _cut_short(self, why: str) -> None:
        self.outcome.cut_short = self.outcome.cut_short or why

    # Before.

    def _crowd(self, place: int) -> Crowd:
        wish = self._wish
        return Crowd(
            place,
            range(place, wish.shape.clients, wish.processes),
            wish.shape,
            self._schedule,
            self._content,
            wish.target,
            self._board,
            window=wish.window,
            period=wish.period,
            slow_rate=wish.slow_rate,
        )

    def _audience(self, place: int) -> Counter[int]:
        """How many clients of a process get the events of each topic, at first; without those that read slowly."""
        shape = self._wish.shape
        return Counter(
            topic
            for client in range(place, shape.clients, self._wish.processes)
            if shape.role(client) is Role.BUSY
            for topic in set(shape.wants(client))
        )

    def _gather(self, crowds: Crowds) -> None:
        """Have all clients connected and subscribed, and see what that costs."""
        wish = self._wish
        each = -(-min(FIRST_CLIENTS, wish.shape.clients // 2) // wish.processes)
        self._arrive(crowds, "connecting", "connect", each)
        time.sleep(REST)
        self._look()
        self.outcome.counted = wish.shape.clients - min(wish.shape.clients, each * wish.processes)
        self._arrive(crowds, "connecting", "connect", wish.shape.clients)
        time.sleep(REST)
        self._look()
        self._arrive(crowds, "subscribing", "subscribe", 0)
        time.sleep(REST)
        self._look()

    def _arrive(self, crowds: Crowds, what: str, command: str, number: int) -> None:
        clients = self._wish.shape.clients

        def progress() -> None:
            done = int(clients - sum(self._board.arriving))
            self._doing = f"{what}: {done:,} of {clients:,} clients"
            self._advance(what, done, clients)

        crowds.ask(command, number, progress=progress)

    def _look(self) -> None:
        self.outcome.costs.append([cost(part) for part in self._wish.parts])

    def _warm_up(self, crowds: Crowds) -> None:
        wish = self._wish
        self._emit_bursts(crowds, 0, wish.warm_up, wish.burst if wish.rate is None else _WARM_UP_BURST, "warming up")
        if wish.warm_up:
            time.sleep(REST)

    # What counts.

    def _emit(self, crowds: Crowds) -> None:
        wish = self._wish
        if wish.rate is None:
            self._emit_bursts(crowds, wish.warm_up, self._total, wish.burst, "emitting")
            return
        walks = wish.shape.name is Name.NAVIGATION
        crowds.tell("walk", walks)
        # What comes last is emitted when nobody replaces anything any more.
        end = self._total - walks
        self._emit_at_rate(crowds, wish.warm_up, end, wish.rate)
        if walks and not self.outcome.cut_short:
            crowds.tell("walk", False)
            time.sleep(REST)
            self._emit_at_rate(crowds, end, self._total, wish.rate)

    def _emit_bursts(self, crowds: Crowds, start: int, end: int, burst: int, what: str) -> None:
        """Emit so many at once, and the next when all clients have the last."""
        board = self._board
        for first in range(start, end, burst):
            numbers = range(first, min(first + burst, end))
            body = self._publisher.body(numbers)
            waiting = 0
            for place, audience in enumerate(self._audiences):
                more = sum(audience[self._schedule.plan[number]] for number in numbers)
                board.target[place] += more
                waiting += more > 0
            now = time.monotonic()
            for number in numbers:
                board.sent[number] = now
            self._publish(numbers, body)
            if not self.outcome.cut_short and not crowds.await_targets(waiting):
                self._cut_short(f"{_which(numbers)} did not come to all clients")
            if self.outcome.cut_short:
                return
            self._advance(what, numbers.stop - start, end - start)

    def _emit_at_rate(self, crowds: Crowds, start: int, end: int, rate: float) -> None:
        """Emit at a fixed rate, whatever has become of those before; what was due while a request was under way goes
        with the next. Times count from when an event was due, so that no delay is hidden."""  # noqa: D205, D209
        begin = time.monotonic()
        most = max(1, min(MAX_BATCH, MAX_BATCH_BYTES // self._wish.size))
        cuts = self._cuts(start, end)
        number = start
        while number < end and not self.outcome.cut_short:
            now = time.monotonic()
            due = min(end, start + int((now - begin) * rate) + 1)
            if due <= number:
                time.sleep(begin + (number - start) / rate - now)
                continue
            numbers = range(number, min(due, number + most))
            for each in numbers:
                self._board.sent[each] = begin + (each - start) / rate
            self.outcome.late = max(self.outcome.late, now - self._board.sent[number])
            crowds.look_after()
            if cuts and number >= cuts[0]:
                crowds.tell("cut")
                cuts.pop(0)
            self._publish(numbers, self._publisher.body(numbers))
            number = numbers.stop
            self._advance("emitting", number - start, end - start)

    def _cuts(self, start: int, end: int) -> list[int]:
        """The events before which all clients are cut."""
        if self._wish.shape.name is not Name.STORM:
            return []
        return [start + (end - start) * part // (CUTS + 1) for part in range(1, CUTS + 1)]

    def _publish(self, numbers: range, body: bytes) -> None:
        try:
            self._publisher.emit(numbers, body)
        except (NotConfirmed, PeerError) as error:
            too_large = isinstance(error, EmitRefusedError) and error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            why = f"{error}{_SMALLER if too_large else ''}"
            if too_large:
                raise TowerbusError(f"--http: {why}") from None
            if not self.outcome.emitted:
                at = "" if self._publisher.url in why else f" at {self._publisher.url}"
                raise TowerbusError(f"--http: no event was ever confirmed{at}: {why}") from None
            which = _which(numbers)
            self.outcome.faults.note(UNCONFIRMED, f"{which}: {why}", len(numbers))
            self._cut_short(f"{which} {'was' if len(numbers) == 1 else 'were'} not confirmed")
            return
        self.outcome.emitted = numbers.stop

    # After.

    def _sum_up(self, accounts: Sequence[dict[str, Any]]) -> None:
        outcome, sent = self.outcome, self._board.sent
        for account in accounts:
            outcome.faults.add(account["faults"], account["examples"])
            outcome.receipts.buckets += account["receipts"]
            outcome.returns.buckets += account["returns"]
            outcome.figures += account["figures"]
        self._compare_places([account["places"] for account in accounts])
        counted = range(self._wish.warm_up, outcome.emitted)
        last = [max(account["last"][number] for account in accounts) for number in counted]
        for number, when in zip(counted, last, strict=True):
            if when:
                outcome.last.note(when - sent[number])
        if counted and any(last):
            outcome.seconds = max(last) - sent[counted.start]

    def _compare_places(self, accounts: Sequence[dict[int, tuple[str, float]]]) -> None:
        """Each process has compared what its own clients were told of an event; now what those of all were."""
        told: dict[int, tuple[str, float]] = {}
        for account in accounts:
            for number, one in account.items():
                if wrong := unlike(told.setdefault(number, one), one):
                    self.outcome.faults.note(CHANGED, f"a client got event {number}: {wrong}")


def _which(numbers: range) -> str:
    return f"event {numbers.start}" if len(numbers) == 1 else f"events {numbers.start} to {numbers.stop - 1}"
