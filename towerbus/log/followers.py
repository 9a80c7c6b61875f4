"""Those who read along: everyone gets every record once, in the order of the log."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from towerbus.log.interface import ILogFollower
from towerbus.log.record import Record
from towerbus.positions import Lost

_log = Logger()
_failures_logged = _log.failureHandler("follower_failed")


class Followers:
    """The followers of one log.

    What a follower does when it gets a record may lead to the next record; that one waits until everyone has the first.
    A follower that fails is logged and harms no other.
    """

    def __init__(self) -> None:
        self._followers: list[ILogFollower] = []
        self._owed: deque[tuple[Record, Deferred[None]]] = deque()
        self._delivering = False

    def add(self, follower: ILogFollower) -> None:
        """Hand it every record from now on."""
        self._followers.append(follower)

    def deliver(self, record: Record) -> Deferred[None]:
        """Hand the next record to everyone.

        Returns:
            A Deferred that fires when everyone has it, and nobody asks the producers to wait any longer.
        """
        done: Deferred[None] = Deferred()
        self._owed.append((record, done))
        if not self._delivering:
            self._delivering = True
            try:
                while self._owed:
                    self._hand_out(*self._owed.popleft())
            finally:
                self._delivering = False
        return done

    def lost(self, lost: Lost) -> None:
        """Tell everyone that a part of the log went by unread."""
        for follower in tuple(self._followers):
            with _failures_logged:
                follower.lost(lost)

    def _hand_out(self, record: Record, done: Deferred[None]) -> None:
        waits: list[Deferred[None]] = []
        for follower in tuple(self._followers):
            failed = True
            with _failures_logged:
                wait = follower.received(record)
                failed = False
                if wait is not None:
                    waits.append(wait)
            if failed:
                with _failures_logged:
                    follower.lost(Lost(record.begin, record.end, "an internal error of the server's"))
        if waits:
            DeferredList(waits, consumeErrors=True).addCallback(lambda _: done.callback(None))
        else:
            done.callback(None)
