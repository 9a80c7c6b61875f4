"""Sends events beside a job that must not wait for them: a bounded queue, and a thread that empties it in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from towerbus.errors import NotConfirmed, TowerbusError

QUEUE_BYTES = 64 * 1024 * 1024
"""What may wait while the server is away. An event that finds it full is not sent, and is counted."""

BATCH_EVENTS = 256
BATCH_BYTES = 256 * 1024
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds before a batch is sent again, doubled each time up to the longest."""

POLL = 0.05
"""Seconds until a waiting thread notices that all is given up."""


class Item(NamedTuple):
    """An event on its way: its address, its payload, an id that makes sending it again harmless, and its bytes."""

    group: str
    type: str
    payload: dict[str, Any]
    id: str
    size: int


class Outcome(NamedTuple):
    """How the sending ended.

    Attributes:
        confirmed: Events that are in the log.
        unconfirmed: Events that may or may not be there.
        reason: What is known of the cause, empty when all were confirmed.
    """

    confirmed: int
    unconfirmed: int
    reason: str


class Emission:
    """Sends what it is given, in order, until told to finish. Never blocks whoever puts an event in.

    Args:
        emit_many: Sends a batch: returns when it is confirmed, raises NotConfirmed when trying again makes sense.
        complain: Told, once per run of failures, why nothing gets through.
    """

    def __init__(self, emit_many: Callable[[list[Item]], object], complain: Callable[[str], None]) -> None:
        self._emit_many = emit_many
        self._complain = complain
        self._waiting: deque[Item] = deque()
        self._bytes = 0
        self._confirmed = 0
        self._refused = 0
        self._in_hand = 0
        self._reason = ""
        self._finishing = False
        self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="emission", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Take an event; at once, whatever happens to it."""
        with self._changed:
            if self._over or self._bytes + item.size > QUEUE_BYTES:
                self._refused += 1
                return
            self._waiting.append(item)
            self._bytes += item.size
            self._changed.notify()

    def finish(self, patience: float) -> Outcome:
        """Wait until all is confirmed, but not for ever.

        Args:
            patience: Seconds to wait.
        """
        with self._changed:
            self._finishing = True
            self._changed.notify()
        until = time.monotonic() + patience
        while self._thread.is_alive() and not self._over and time.monotonic() < until:
            self._thread.join(POLL)
        self._over = True
        with self._changed:
            unconfirmed = len(self._waiting) + self._in_hand + self._refused
            reason = self._reason or (f"more than {QUEUE_BYTES} bytes were waiting" if self._refused else "out of time")
            return Outcome(self._confirmed, unconfirmed, reason if unconfirmed else "")

    def give_up(self, reason: str) -> None:
        """Send nothing more. Takes no lock: a signal may call it anywhere."""
        self._reason = reason
        self._over = True

    def _run(self) -> None:
        while batch := self._next():
            if not self._send(batch):
                return
            with self._changed:
                self._confirmed += len(batch)
                self._in_hand = 0

    def _next(self) -> list[Item]:
        """The next batch, as soon as there is one; empty when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finishing)
            batch: list[Item] = []
            total = 0
            while self._waiting and len(batch) < BATCH_EVENTS:
                total += self._waiting[0].size
                if batch and total > BATCH_BYTES:
                    break
                batch.append(self._waiting.popleft())
                self._bytes -= batch[-1].size
            self._in_hand = len(batch)
            return batch

    def _send(self, batch: Sequence[Item]) -> bool:
        """Send a batch as often as it takes; False when it is no use."""
        pause = FIRST_PAUSE
        while not self._over:
            try:
                self._emit_many(list(batch))
            except NotConfirmed as error:
                if not self._reason:
                    self._complain(f"not confirmed yet, trying again: {error}")
                self._reason = str(error)
            except (TowerbusError, ValueError, TypeError) as error:
                self._complain(f"refused: {error}")
                self.give_up(str(error))
                return False
            else:
                self._reason = ""
                return True
            until = time.monotonic() + pause
            while not self._over and time.monotonic() < until:
                time.sleep(POLL)
            pause = min(2 * pause, LONGEST_PAUSE)
        return False
