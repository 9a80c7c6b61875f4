"""How a bridge is, and what it has done: for the log, `/readyz` and `/metrics`. Pure but for the log."""

from __future__ import annotations

import enum
from typing import NamedTuple

from twisted.logger import Logger

_log = Logger()


class State(enum.StrEnum):
    """Where a bridge is."""

    STOPPED = "stopped"
    STARTING = "starting"
    """A life has begun, and the foreign system has not answered yet."""
    CARRYING = "carrying"
    WAITING = "waiting"
    """A life has ended; the next one begins after a pause."""


class Title(NamedTuple):
    """What a bridge is called.

    Attributes:
        name: Its name.
        side: `source` or `sink`.
        kind: The source's or the sink's.
    """

    name: str
    side: str
    kind: str


class Counts:
    """What a bridge has done since it started.

    Attributes:
        messages: Foreign messages that were taken.
        events: Events that were confirmed: by the bus, or by the sink.
        filtered: Messages that the mapping passed over.
        dead: What was put in the dead queue.
        lost: Times that a part of the log went by unread.
        failures: Times that it went from well to ill, and lives that ended without being asked to.
    """

    def __init__(self) -> None:
        self.messages = self.events = self.filtered = self.dead = self.lost = self.failures = 0


class Standing:
    """How a bridge is.

    Args:
        title: What it is called.
    """

    def __init__(self, title: Title) -> None:
        self.title = title
        self.counts = Counts()
        self.state = State.STOPPED
        self._trouble = "not started yet"

    @property
    def trouble(self) -> str:
        """What is wrong; empty where all is well."""
        if self._trouble or self.state is State.CARRYING:
            return self._trouble
        return "the foreign system has not answered yet"

    def begun(self) -> None:
        """A life begins. What ended the last one stays its trouble until the foreign system answers."""
        self.state = State.STARTING
        if not self.counts.failures:
            self._trouble = ""

    def established(self) -> None:
        """The foreign system answers."""
        if self.state is not State.CARRYING or self._trouble:
            _log.info("bridge_established: {name} ({kind} {side})", **self.title._asdict())
        self.state, self._trouble = State.CARRYING, ""

    def troubled(self, text: str) -> None:
        """Something is wrong and the life goes on; an empty text says that it is over."""
        if text and text != self._trouble:
            _log.warn("bridge_troubled: {name}: {reason}", name=self.title.name, reason=text)
            self.counts.failures += not self._trouble
        elif not text and self._trouble:
            _log.info("bridge_mended: {name}", name=self.title.name)
        self._trouble = text

    def failed(self, text: str, pause: float) -> None:
        """A life has ended.

        Args:
            text: Why.
            pause: Seconds before the next one.
        """
        self.counts.failures += 1
        self.state, self._trouble = State.WAITING, text
        _log.warn(
            "bridge_failed: {name}: {reason}; trying again in {pause:.1f} s",
            name=self.title.name,
            reason=text,
            pause=pause,
        )

    def stopped(self) -> None:
        """The bridge was stopped."""
        self.state, self._trouble = State.STOPPED, "stopped"
