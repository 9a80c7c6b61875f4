"""How clients come: so many at once, each through its handshake and, where it was there before, back to its place."""

from __future__ import annotations

import select
import ssl
import time
from collections import Counter, deque
from collections.abc import Iterable

from towerbus.bench.client import Client, State, said
from towerbus.bench.schedule import Schedule
from towerbus.bench.target import Target
from towerbus.errors import TowerbusError

RETRY = 0.5
"""Seconds after which a client tries again to come back."""
LESS = "; does it ask for too much? Give a lower --each, or a shorter --mark"
"""What helps where a server does not take a subscription."""
_TOO_LARGE = 1009
"""A close code (RFC 6455 section 7.4.1): a message is too large."""
_COME_BACK = frozenset({None, 1012, 1013})
"""How a server may end the connection of one that comes back: try again."""


class Arrivals:
    """Connects clients, has them subscribe, and lets go of them.

    Args:
        schedule: Which topics there are.
        target: Where to connect.
        window: Handshakes under way at once, and subscriptions.
        figures: Where it is counted how often a client had to try again.

    Attributes:
        by_fd: The clients that have a connection, by its descriptor.
        epoll: Watches them.
    """

    def __init__(self, schedule: Schedule, target: Target, window: int, figures: Counter[str]) -> None:
        self._schedule, self._target, self._window, self._figures = schedule, target, window, figures
        self.by_fd: dict[int, Client] = {}
        self.epoll = select.epoll()
        self._to_connect: deque[tuple[float, Client]] = deque()
        self._to_ask: deque[Client] = deque()
        self._connecting = self._asking = 0

    def connect(self, clients: Iterable[Client]) -> None:
        """Have those connected that are not."""
        self._to_connect.extend((0.0, client) for client in clients if client.state is State.OUT)

    def subscribe(self, clients: Iterable[Client]) -> None:
        """Have those subscribed that are let in and have not subscribed before."""
        self._to_ask.extend(client for client in clients if client.state is State.OPEN and not client.current)

    @property
    def left(self) -> int:
        """Clients that are not yet let in, or not yet subscribed, though they are to be."""
        return len(self._to_connect) + len(self._to_ask) + self._connecting + self._asking

    def wait(self, timeout: float) -> float:
        """How long to wait, so that those who wait for their turn get it."""
        return min(timeout, 0.002) if self._to_connect or self._to_ask else timeout

    def begin(self, now: float) -> None:
        """Begin with as many as may be under way.

        Raises:
            TowerbusError: One can't connect, and was not there before.
        """
        while self._to_connect and self._connecting < self._window and self._to_connect[0][0] <= now:
            self._connect(self._to_connect.popleft()[1])
        while self._to_ask and self._asking < self._window:
            client = self._to_ask.popleft()
            if client.state is State.OPEN:
                self._asking += 1
                client.ask(self._schedule, client.feed)

    def go_on(self, client: Client) -> None:
        """There is something to do for one that is being connected.

        Raises:
            TowerbusError: It can't connect, and was not there before.
        """
        if client.state is not State.CONNECTING:
            return
        try:
            client.go_on_connecting(self._target)
            self.epoll.modify(client.descriptor, select.EPOLLIN)
        except OSError as error:
            self.leave(client)
            self._unreachable(client, error)

    def greeted(self, client: Client) -> None:
        """One is let in. Those who were there before ask for what they have missed at once."""
        self._connecting -= 1
        if client.since:
            self._asking += 1
            client.ask(self._schedule, client.feed, since=True)

    def replied(self) -> None:
        """One has got the reply to its subscription."""
        self._asking -= 1

    def come_back(self, client: Client, now: float, after: float = 0.0) -> None:
        """Cut a client, and have it come back.

        Args:
            client: The client.
            now: The time, from which on it counts how long it takes.
            after: Seconds until it tries.
        """
        self.leave(client)
        client.since = client.since or now
        self._to_connect.append((now + after if after else 0.0, client))

    def lost(self, client: Client, code: int | None, reason: str) -> bool:
        """The connection of one that was arriving has ended.

        Returns:
            Whether it was arriving, and tries again.

        Raises:
            TowerbusError: It was not there before.
        """
        arriving, returning = client.state is not State.OPEN or client.awaited is not None, client.since != 0
        arriving = (arriving and not client.walking) or returning
        state = client.state
        self.leave(client)
        if arriving and not returning:
            raise TowerbusError(f"{client.name} {self._why_not(state, code, reason)}")
        if not arriving or code not in _COME_BACK:
            return False
        self._figures["tried again"] += 1
        self.come_back(client, time.monotonic(), RETRY)
        return True

    def _why_not(self, state: State, code: int | None, reason: str) -> str:
        """Why a client could not begin, for a person."""
        if state is State.OPEN:
            return f"was let in, and not subscribed: {reason}{LESS if code == _TOO_LARGE else ''}"
        hint = f"; is {'wss:' if self._target.tls else 'ws:'} right for that port?" if state is State.SHAKING else ""
        return f"was not let in: {reason}{hint}"

    def leave(self, client: Client) -> None:
        """Let go of a client's connection."""
        if client.state in {State.CONNECTING, State.SHAKING, State.GREETING}:
            self._connecting -= 1
        elif client.state is State.OPEN and client.awaited is not None and not client.walking:
            self._asking -= 1
        self.by_fd.pop(client.descriptor, None)
        client.close()

    def _connect(self, client: Client) -> None:
        try:
            fd = client.connect(self._target)
        except OSError as error:
            self._unreachable(client, error)
            return
        self._connecting += 1
        self.by_fd[fd] = client
        self.epoll.register(fd, select.EPOLLOUT)

    def _unreachable(self, client: Client, error: OSError) -> None:
        if client.since == 0:
            host, port = self._target.address
            odd = isinstance(error, ConnectionResetError | ssl.SSLError) and not isinstance(
                error, ssl.SSLCertVerificationError
            )
            hint = "; does that port speak TLS?" if odd and self._target.tls else ""
            raise TowerbusError(f"{client.name} can't connect to {host}:{port}: {said(error)}{hint}")
        self._figures["tried again"] += 1
        self._to_connect.append((time.monotonic() + RETRY, client))
