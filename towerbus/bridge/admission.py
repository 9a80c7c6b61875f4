"""Lets AWX's relays in who know the secret now, and tells of those who do not: each reason is an event of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from towerbus.bridge.awx import Verdict, judge

SAY_EVERY = 1.0
"""Seconds between two words about the same reason: a relay that is refused comes again and again."""
_SAID = {
    Verdict.MISSING: "relay_secret_missing: {peer}: {why} ({refused} refused)",
    Verdict.MALFORMED: "relay_secret_malformed: {peer}: {why} ({refused} refused)",
    Verdict.EMPTY: "relay_secret_empty: {peer}: {why} ({refused} refused)",
    Verdict.WRONG: "relay_secret_wrong: {peer}: {why} ({refused} refused)",
    Verdict.OLD: "relay_secret_old: {peer}: {why} ({refused} refused)",
    Verdict.EARLY: "relay_secret_early: {peer}: {why} ({refused} refused)",
}
_log = Logger()


class Admission:
    """Judges handshakes, counts those that it refuses, and logs them.

    Args:
        reactor: Tells how much time has gone by.
        secret: The secret; not empty.
        name: The bridge's.
        now: Tells the time, in seconds since the epoch of Unix.
    """

    def __init__(self, reactor: Any, secret: str, name: str, now: Callable[[], float]) -> None:
        self._reactor = reactor
        self._secret = secret
        self._name = name
        self._now = now
        self._refused = dict.fromkeys(_SAID, 0)
        self._said_at: dict[Verdict, float] = {}

    @property
    def refused(self) -> int:
        """How many were refused."""
        return sum(self._refused.values())

    def refusal(self, given: str | None, peer: str) -> str:
        """Judge a handshake.

        Args:
            given: Its header `secret`; None where there is none.
            peer: Who sends it.

        Returns:
            Why it is not let in; empty where it is.
        """
        verdict = judge(given, self._secret, self._now())
        if verdict is Verdict.GOOD:
            return ""
        self._refused[verdict] += 1
        seconds = self._reactor.seconds()
        if seconds - self._said_at.get(verdict, seconds - SAY_EVERY) >= SAY_EVERY:
            self._said_at[verdict] = seconds
            _log.warn(_SAID[verdict], peer=peer, why=verdict.value, refused=self._refused[verdict], bridge=self._name)
        return f"not let in: {verdict.value}"
