"""How fresh is what comes through the bus? The rules of the canary. Pure: it is given the time, which never jumps.

Each period a canary is emitted, and has to come back through the log. The age of the bus is the time since the newest
canary that came back was emitted. Past `STALE_AFTER` periods it is stale, and it is fresh again when one comes back
quickly: a bus that is always late does not flap.
"""

from __future__ import annotations

STALE_AFTER = 2.5
"""Periods."""
FRESH_WITHIN = 1.25
"""Periods within which a canary comes back when the bus is fresh again: the age then stays below the limit."""
PATIENT_FROM = 8
"""Canaries that the intake has taken and that do not come back, from which on few more are sent after them."""
PATIENCE = 5
"""Periods between two canaries then: what stands in the intake has to be ordered by somebody some day."""
MAX_UNDER_WAY = 256
"""Canaries that may be on their way before the oldest are given up."""


class Freshness:
    """What is known of the canaries.

    Args:
        period: Seconds between two canaries.
        now: The time.
    """

    def __init__(self, period: float, now: float) -> None:
        self.period = period
        self.limit = period * STALE_AFTER
        """Seconds of age beyond which it is stale."""
        self.proven = False
        """Whether a canary has come back at all."""
        self.stale = False
        """Whether nothing may have come through."""
        self.round_trip = 0.0
        """Seconds that the newest canary took, of those that have come back."""
        self.refusal = ""
        """Why the newest canary that was answered was not taken; empty where it was."""
        self.looked_at = now
        """When it was looked at the time last."""
        self._fresh_at = now
        self._next_at = now
        self._number = 0
        self._emitted: dict[int, float] = {}
        self._unanswered: dict[int, float] = {}
        self._taken = 0

    def look(self, now: float) -> None:
        """Look at the time; several times in a period.

        Time in which nobody looked does not count: that this process was stopped says nothing about the bus.
        """
        missed = now - self.looked_at - self.period
        if missed > 0:
            self._fresh_at += missed
            for times in (self._emitted, self._unanswered):
                for number in times:
                    times[number] += missed
        self.looked_at = now
        if self.age(now) > self.limit:
            self.stale = True

    def due(self, now: float) -> int | None:
        """The number of the canary that is to be emitted now; None where none is."""
        if now < self._next_at:
            return None
        self._next_at = now + self.period * (PATIENCE if self._taken >= PATIENT_FROM else 1)
        self._number += 1
        for times in (self._emitted, self._unanswered):
            times[self._number] = now
            if len(times) > MAX_UNDER_WAY:
                del times[min(times)]
        return self._number

    def taken(self, number: int) -> None:
        """The intake has confirmed a canary."""
        if self._unanswered.pop(number, None) is not None:
            self._taken += 1
        self.refusal = ""

    def refused(self, number: int, reason: str) -> None:
        """The intake did not take a canary, or can't say."""
        self._unanswered.pop(number, None)
        self.refusal = reason

    def returned(self, number: int, now: float) -> None:
        """A canary has come back through the log."""
        emitted = self._emitted.get(number)
        if emitted is None:
            return
        # What comes back was taken, whatever the intake knows of it.
        self._emitted = {each: at for each, at in self._emitted.items() if each > number}
        self._unanswered = {each: at for each, at in self._unanswered.items() if each > number}
        if self._taken >= PATIENT_FROM:
            self._next_at = now
        self._taken = 0
        self.proven, self._fresh_at, self.round_trip = True, emitted, now - emitted
        if self.round_trip <= self.period * FRESH_WITHIN:
            self.stale = False

    def age(self, now: float) -> float:
        """Seconds since the newest canary that came back was emitted; since the beginning, where none did."""
        return max(0.0, now - self._fresh_at)

    def unanswered(self, now: float) -> float:
        """Seconds for which the intake has not said what became of a canary; 0 where it owes no answer."""
        return now - min(self._unanswered.values()) if self._unanswered else 0.0
