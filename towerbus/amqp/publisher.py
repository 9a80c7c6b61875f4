"""The one connection of a process that emits, and the thread that runs it on pika's I/O loop (`plain.py`).

It lives also while the program does nothing, and what several threads have at hand goes in one message. In a child that
is forked the copy of its socket is closed, without a word to the broker, which would be taken for the parent's.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from pika.adapters.select_connection import IOLoop

from towerbus.amqp import lives
from towerbus.amqp.errors import Unpublished, trouble
from towerbus.amqp.plain import Session
from towerbus.amqp.quiet import THREAD, keep_quiet, log
from towerbus.amqp.url import Broker
from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.intake.line import FULL, Call, Line, Outcome, ids, unanswered
from towerbus.intake.messages import pack

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0
"""Seconds between a connection that is lost and the next, at first and at the most."""
FIRST_REST, LONGEST_REST = 0.05, 1.0
"""Seconds before a message that the broker did not take is sent again."""
LOOKS = 5.0
"""Seconds between looks whether the emitter is still there: one that is dropped must not leave a thread behind."""


class Waiter:
    """A thread that waits for the outcome of its call."""

    __slots__ = ("_told", "error")

    def __init__(self) -> None:
        self._told = threading.Lock()
        self._told.acquire()
        self.error: NotConfirmed | None = None

    def tell(self, error: NotConfirmed | None) -> None:
        """Take the outcome."""
        self.error = error
        self._told.release()

    def wait(self, seconds: float) -> None:
        """Wait until the outcome is known, or the time is over."""
        self._told.acquire(timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX)))


class Publisher:
    """The connection of a process, and the thread that runs it. It begins with the first emit.

    Args:
        broker: Where.
        owner: Whoever emits; when it is gone without a word, the connection ends too.
    """

    def __init__(self, broker: Broker, owner: object) -> None:
        self._broker = broker
        self._owner = weakref.ref(owner)
        # Held for moments only, around the line and the next four; nothing is waited for under it.
        self._lock = threading.Lock()
        self._line = Line()
        # Made with the thread, by the first emit.
        self._loop: IOLoop
        self._thread: threading.Thread | None = None
        self._roused = self._closed = False
        self._settled = threading.Event()
        self._settled.set()
        # These belong to the thread.
        self._session: Session | None = None
        self._ready = self._ever = False
        self._blocked = ""
        self._rest: Any = None
        self._pauses = self._rests = 0
        self._why = "not connected yet"
        self._before = ""
        lives.add(self)

    def emit(self, events: Sequence[Event], timeout: float) -> bool:
        """Put events in the line, and wait for their outcome.

        Returns:
            False where it was closed before; another one is wanted then.

        Raises:
            NotConfirmed: As `blocking.BlockingIntake.emit`.
        """
        if threading.current_thread() is self._thread:
            # Such as a handler of logs that emits them: it would wait for itself.
            raise BusUnavailable("an emit from the emitter's own thread can't be waited for", ids(events))
        waiter = Waiter()
        with self._lock:
            if self._closed:
                return False
            if self._thread is None:
                self._thread = self._started(events)
            call = self._line.add(events, time.monotonic(), waiter.tell)
            if not self._roused:
                self._roused = True
                self._loop.add_callback_threadsafe(self._publish)
        try:
            waiter.wait(timeout)
        finally:
            # Also where the handler of a signal raises.
            self._give_up(call, f"not confirmed within {timeout:g} s: {self._why or unanswered(self._before)}")
        if waiter.error is not None:
            raise waiter.error
        return True

    def _started(self, events: Sequence[Event]) -> threading.Thread:
        self._loop = IOLoop()
        thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # The system has no room for one more, or the program is ending.
            self._loop.close()
            raise BusUnavailable(f"the emitter's thread can't be started: {error}", ids(events)) from error
        return thread

    def close(self) -> None:
        """Take no more; publish what waits, and end."""
        with self._lock:
            self._closed = True
            if self._thread is not None:
                self._loop.add_callback_threadsafe(self._end_if_done)

    def join(self, seconds: float) -> None:
        """Wait until it has ended, or the time is over."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))

    def forsake(self) -> None:
        """Let go of it in a child of its process, where it has no thread, and its lock may be held for ever."""
        self._lock = threading.Lock()
        self._closed = True
        if self._session is not None:
            self._session.forsake()

    def _give_up(self, call: Call, reason: str) -> None:
        with self._lock:
            _tell(self._line.give_up(call, reason))
            if self._closed:
                self._loop.add_callback_threadsafe(self._end_if_done)

    # What follows runs in the thread.

    def _run(self) -> None:
        # From within the loop, where a failure is told and tried again.
        self._loop.call_later(0, self._connect)
        self._look()
        while True:
            try:
                self._loop.start()
            except Exception:  # noqa: BLE001 - whatever it is, the program's emits go on
                # A fault of ours or of pika's. A message may be in doubt now, and everybody's time goes on.
                log.exception("the connection to %s failed as it never should", self._broker)
                self._begin_anew()
            else:
                self._loop.close()
                return

    def _begin_anew(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.forsake()
        with self._lock:
            self._loop.close()
            self._loop = IOLoop()
        self.over(ConnectionError("an internal error"))
        self._look()

    def _look(self) -> None:
        if self._owner() is None:
            self.close()
        else:
            self._loop.call_later(LOOKS, self._look)

    def await_settled(self, seconds: float) -> None:
        """Wait until it is not about to connect, or the time is over."""
        self._settled.wait(seconds)

    def _connect(self) -> None:
        self._settled.clear()
        self._session = Session(self._broker, self._loop, self)

    def established(self) -> None:
        """The session can publish."""
        self._settled.set()
        log.info("connected to %s", self._broker)
        self._ready = self._ever = True
        self._pauses, self._why = 0, ""
        self._publish()

    def answered(self, error: Unpublished | None) -> None:
        """The message in flight has its answer."""
        with self._lock:
            if error is None:
                _tell(self._line.confirmed())
            else:
                self._line.unsent()
        if error is None:
            self._rests, self._why, self._before = 0, "", ""
            self._publish()
            self._end_if_done()
        else:
            self._why = str(error) if error.returned else f"{FULL} ({error})"
            self._rest = self._loop.call_later(_pause(FIRST_REST, LONGEST_REST, self._rests), self._rested)
            self._rests += 1

    def blocked(self, reason: str) -> None:
        """The broker takes nothing for a while, or takes messages again."""
        self._blocked = reason
        self._why = f"the broker takes nothing: {reason}" if reason else ""
        self._publish()

    def over(self, reason: Exception) -> None:
        """The session is over."""
        self._settled.set()
        found = trouble(reason, self._broker)
        if self._ready and not self._closed:
            log.warning("the connection was lost: %s", found.text)
        self._session, self._ready, self._blocked, self._why = None, False, "", found.text
        self._before = found.text
        if self._rest is not None:
            self._loop.remove_timeout(self._rest)
            self._rest = None
        with self._lock:
            self._line.lost()
            if found.refused and not self._ever:
                # Nobody is to wait for a wrong password. Later it may be the broker that is not all there yet.
                _tell(self._line.refuse(found.text))
            done = self._closed and self._line.oldest() is None
        if done:
            self._loop.stop()
        else:
            # One that is refused comes about again and again, and would end as often.
            first = LONGEST_PAUSE if found.refused else FIRST_PAUSE
            self._loop.call_later(_pause(first, LONGEST_PAUSE, self._pauses), self._connect)
            self._pauses += 1

    def _rested(self) -> None:
        self._rest = None
        self._publish()

    def _publish(self) -> None:
        with self._lock:
            self._roused = False
            free = self._ready and not self._blocked and self._rest is None
            message = self._line.take() if free else None
        if message is not None and self._session is not None:
            self._session.publish(message.id, pack(message.events))

    def _end_if_done(self) -> None:
        with self._lock:
            done = self._closed and self._line.oldest() is None
        if done and self._session is not None:
            self._session.end(ConnectionError("closed"))
        elif done:
            self._loop.stop()


def _tell(outcomes: list[Outcome]) -> None:
    for call, error in outcomes:
        call.tell(error)


def _pause(first: float, longest: float, times: int) -> float:
    """Seconds to wait before the next try; longer each time, and never quite the same."""
    return min(longest, first * 2.0 ** min(times, 10)) * random.uniform(0.5, 1)  # noqa: S311 - jitter


keep_quiet()
