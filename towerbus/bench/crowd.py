"""Many clients in one process, and the loop that reads them: what decides how large a server can be measured.

What a client reads is first compared, as a whole, with what another one of the same topics has read at the same place
and what was then found to be right; where that is of no use, frame by frame. So most deliveries cost a recv(2) and a
comparison of bytes, and only the first of each is taken apart.
"""

from __future__ import annotations

import resource
import select
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from towerbus.bench import frames
from towerbus.bench.arrivals import Arrivals
from towerbus.bench.board import Board
from towerbus.bench.client import SIZE, Client, State
from towerbus.bench.content import Content
from towerbus.bench.latencies import Latencies
from towerbus.bench.ledger import DROPPED, Faults
from towerbus.bench.loads import Role, Shape
from towerbus.bench.reader import Reader
from towerbus.bench.schedule import Chunk, Schedule
from towerbus.bench.talk import Talk
from towerbus.bench.target import NotReadyError, Target

AT_ONCE = 64
"""Sockets that are read before the clock is looked at: what they got counts as received then, and not earlier."""
SLOW_PERIOD = 0.1
"""Seconds between the readings of a slow client."""
PONG_PERIOD = 5.0
"""Seconds between a slow client's unasked pongs (RFC 6455 section 5.5.3): it lives, and has not read the pings yet."""
MAX_FILES = 2**20
"""Files that a process opens, at the most, where nothing else limits it: the kernel's own limit."""
_WAIT = 0.05
_CLOSED_SLOW = "closed slow"


class Crowd:
    """The clients of one process.

    Args:
        place: The process's number, on the board.
        numbers: The clients' numbers.
        shape: The load.
        schedule: Its events.
        content: What is in them.
        target: Where to connect.
        board: What is shared with the others.
        window: Handshakes, and subscriptions, under way at once.
        period: Seconds in which each client replaces its set once (`navigation`).
        slow_rate: Bytes a second that a slow client reads.

    Attributes:
        faults: What was untrue.
        clients: All clients.
        delivered: How many deliveries were right.
        tell: Called when as many deliveries are counted as the board says.
    """

    def __init__(
        self,
        place: int,
        numbers: Iterable[int],
        shape: Shape,
        schedule: Schedule,
        content: Content,
        target: Target,
        board: Board,
        *,
        window: int,
        period: float,
        slow_rate: int,
    ) -> None:
        self.faults = Faults()
        self._place, self._shape, self._schedule, self._board = place, shape, schedule, board
        self._target = target
        self._period, self._slow_rate = period, slow_rate
        self._talk = Talk(
            schedule,
            content,
            target.subprotocol,
            self.faults,
            board.when,
            time.monotonic,
            token=target.shows_token,
        )
        self._reader = Reader(self._talk, self.faults, self._end, compression=target.compression)
        self._talk.on_reply, self._talk.on_caught_up = self._replied, self._caught_up
        self._talk.on_put_out = self._end
        self.clients = [
            Client(number, shape.role(number), schedule.feed(shape.wants(number)), self.faults) for number in numbers
        ]
        self.delivered, self._told = 0, 0.0
        self._measured_from = 0
        self._last = [0.0] * len(schedule.plan)
        self._receipts, self._returns = Latencies(), Latencies()
        self._figures: Counter[str] = Counter()
        self._arrivals = Arrivals(schedule, target, window, self._figures)
        self._first = 0
        self._steps, self._steps_from = -1, 0.0
        self._slow = [client for client in self.clients if client.role is Role.SLOW]
        self._slow_at = self._pong_at = 0.0
        self.tell: Callable[[], None] = lambda: None
        self._talk.on_greeted = self._arrivals.greeted
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES if most == resource.RLIM_INFINITY else most, most))

    # What it is told to do.

    def connect(self, count: int) -> None:
        """Have that many clients connected, and let in."""
        self._arrivals.connect(self.clients[:count])

    def subscribe(self, number: int) -> None:
        """Have all that are connected subscribed; what they get begins with this event."""
        self._first = number
        self._arrivals.subscribe(self.clients)

    @property
    def arriving(self) -> int:
        """Clients that are not yet let in, or not yet subscribed, though they are to be."""
        return self._arrivals.left

    def measure(self, number: int) -> None:
        """From this event on it counts."""
        self._measured_from = number
        self._receipts, self._returns = Latencies(), Latencies()
        # Who was closed for reading slowly before may be gone for good: there are fewer slow ones.
        closed = self._figures[_CLOSED_SLOW]
        self._figures.clear()
        self._figures[_CLOSED_SLOW] = closed

    def walk(self, *, on: bool) -> None:
        """Let each client replace its set once a period, or no more."""
        self._steps, self._steps_from = (0, time.monotonic()) if on else (-1, 0.0)

    def cut(self) -> None:
        """Cut all clients, and have them come back with the position that they are at."""
        now = time.monotonic()
        for client in self.clients:
            if not client.excused and client.state is not State.OUT:
                self._arrivals.come_back(client, now)

    def hurry(self) -> None:
        """Slow clients read as the others from now on."""
        slow, self._slow = self._slow, []
        for client in slow:
            # One that was closed and has come back is no slow one any more.
            if client.role is Role.SLOW and client.state is State.OPEN:
                self._arrivals.epoll.register(client.descriptor, select.EPOLLIN)
                # What TLS holds already would wake nobody.
                self._read(client)

    def behind(self, end: int) -> int:
        """Clients that have not got all events before a number."""
        return sum(
            client.awaited is not None or client.since != 0 or not client.complete(end, self._board.when)
            for client in self.clients
            if client.role is not Role.IDLE and not client.excused
        )

    def close(self, end: int) -> dict[str, Any]:
        """The account of it all: nothing more comes.

        Args:
            end: How many events were emitted.
        """
        for client in self.clients:
            if not client.excused:
                if client.state is State.OUT:
                    self.faults.note(DROPPED, f"{client.name} was cut, and did not get in again")
                client.close_account(end, self._board.when)
        return {
            "faults": self.faults.counts,
            "examples": self.faults.examples,
            "receipts": self._receipts.buckets,
            "returns": self._returns.buckets,
            "last": self._last,
            "places": self._talk.places.told,
            "figures": self._figures + Counter({"stale": self._talk.stale}),
        }

    # The loop.

    def turn(self, timeout: float = _WAIT) -> None:
        """Read what has come, and do what is due.

        Raises:
            TowerbusError: The server can't be reached, or does not let the clients in.
        """
        chunk: Chunk | None = None
        times = 0
        by_fd = self._arrivals.by_fd
        for fd, _ in self._arrivals.epoll.poll(self._wait(timeout), AT_ONCE):
            client = by_fd[fd]
            try:
                data = client.recv(SIZE)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            known = client.chunks.get(client.next)
            if known is not None and known.data == data:
                client.next, client.position = known.next, known.position
                if known is chunk:
                    times += 1
                    continue
                if chunk is not None:
                    self._count(chunk.numbers, times)
                chunk, times = known, 1
            else:
                self._slow_path(client, data)
        if chunk is not None:
            self._count(chunk.numbers, times)
        self._report()
        self._do_what_is_due()

    def _wait(self, timeout: float) -> float:
        timeout = self._arrivals.wait(timeout)
        return min(timeout, self._period / len(self.clients)) if self._steps >= 0 else timeout

    def _report(self) -> None:
        board, place = self._board, self._place
        board.delivered[place] = self.delivered
        board.faults[place] = self.faults.total
        target = board.target[place]
        if self.delivered >= target > self._told:
            self._told = target
            self.tell()

    def _count(self, numbers: Iterable[int], times: int) -> None:
        """So many clients have got these events, by now."""
        now = time.monotonic()
        for number in numbers:
            self.delivered += times
            self._last[number] = now
            if number >= self._measured_from:
                self._receipts.note(now - self._board.sent[number], times)
                self._figures["deliveries"] += times

    def _slow_path(self, client: Client, data: bytes | None) -> None:
        """Take what is not known by heart."""
        if data is None:
            self._arrivals.go_on(client)
        elif not data:
            self._end(client, None, "the connection was lost")
        elif client.state is not State.SHAKING:
            self._take(client, data)
        elif rest := self._take_head(client, data):
            self._take(client, rest)

    def _take_head(self, client: Client, data: bytes) -> bytes | None:
        """Take the answer to a handshake; who was there before tries again where the server is not ready."""
        try:
            return client.take_head(data, self._target)
        except NotReadyError as error:
            self._end(client, None, str(error))
            return None

    def _read(self, client: Client) -> None:
        """Read what has come to a client by now."""
        try:
            data = client.recv(SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._slow_path(client, data)

    def _take(self, client: Client, data: bytes) -> None:
        numbers = self._reader.take(client, data)
        if client.role is Role.SLOW or client.since:
            # When they read it says nothing about how soon it was sent.
            self.delivered += len(numbers)
            self._figures["deliveries"] += sum(number >= self._measured_from for number in numbers)
        else:
            self._count(numbers, 1)

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        self._arrivals.begin(now)
        if self._steps >= 0:
            self._take_steps(now)
        if self._slow and now >= self._slow_at:
            self._slow_at = now + SLOW_PERIOD
            self._read_slowly(now)

    # What becomes of clients.

    def _replied(self, client: Client) -> None:
        if client.walking:
            client.walking = False
            self._figures["replaced"] += 1
            return
        self._arrivals.replied()
        if client.since:
            return
        client.begin(client.feed, self._first)
        if client.role is Role.SLOW:
            self._arrivals.epoll.unregister(client.descriptor)

    def _caught_up(self, client: Client) -> None:
        if client.since:
            self._returns.note(time.monotonic() - client.since)
            self._figures["returned"] += 1
            client.since = 0.0

    def _end(self, client: Client, code: int | None, reason: str) -> None:
        """A connection has ended, and not by us."""
        if self._arrivals.lost(client, code, reason):
            return
        self._figures[_CLOSED_SLOW] += client.role is Role.SLOW
        if self._talk.ended(client, code, reason):
            client.role = Role.BUSY
            self._arrivals.come_back(client, time.monotonic())

    # What some loads do.

    def _take_steps(self, now: float) -> None:
        due = int((now - self._steps_from) / self._period * len(self.clients))
        while self._steps < due:
            client = self.clients[self._steps % len(self.clients)]
            self._steps += 1
            if client.state is not State.OPEN:
                continue
            if client.awaited is not None:
                self._figures["replies late"] += 1
                continue
            client.step += 1
            client.walking = True
            client.ask(self._schedule, self._schedule.feed(self._shape.wants(client.number, client.step)))

    def _read_slowly(self, now: float) -> None:
        ponging = now >= self._pong_at
        for client in self._slow:
            if client.role is not Role.SLOW or client.state is not State.OPEN or client.awaited is not None:
                continue
            data = client.read_slowly(max(1, int(self._slow_rate * SLOW_PERIOD)))
            if data is not None:
                self._slow_path(client, data)
            if ponging:
                client.send(frames.PONG, b"")
        if ponging:
            self._pong_at = now + PONG_PERIOD
