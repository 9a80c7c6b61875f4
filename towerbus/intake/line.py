"""Emits that stand in line for the broker: kept in order, packed, bounded, and never told wrong. Pure.

**One message is in flight at a time.** With several, the broker could refuse one (a full queue, a queue without a
leader) and take the next, and no later try would bring them back in order. While one is in flight the others gather and
become the next message, so that its size follows the load; that costs no throughput (256 events per answer).

What a caller is told is in the order of the calls: no emit is confirmed before the failure of an earlier one is told,
unless that one's own time was over first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.log.record import MAX_BYTES, MAX_EVENTS

MAX_WAITING = 64 * 1024 * 1024
"""Bytes that may stand in line, at the most; one call alone may have more."""
FULL = "intake full: events come faster than the worker takes them, or no worker runs"
"""Why a broker refuses messages."""
OVERHEAD = 512
"""Bytes that an event takes beside its payload, about."""

Tell = Callable[[NotConfirmed | None], None]
"""Is called once: with None when all events of a call are confirmed, or with the error."""


class Call:
    """One call of an emit.

    Args:
        events: Its events.
        added: When it came, in seconds of the caller's clock.
        tell: Takes the outcome.
    """

    __slots__ = ("added", "confirmed", "doubt", "events", "flies", "size", "tell", "told")

    def __init__(self, events: Sequence[Event], added: float, tell: Tell) -> None:
        self.events = events
        self.added = added
        self.tell = tell
        self.size = sum(len(event.payload) + OVERHEAD for event in events)
        self.confirmed = 0
        """How many of its events are confirmed; always the first ones."""
        self.flies = False
        """Whether some of its events are in flight."""
        self.doubt = False
        """Whether some that are not confirmed may have been taken all the same."""
        self.told = False
        """Whether the outcome is known, or of no more interest."""

    @property
    def in_doubt(self) -> bool:
        """Whether some of its events may have been taken."""
        return self.flies or self.doubt or self.confirmed > 0


class Message(NamedTuple):
    """What is published at once.

    Attributes:
        events: Its events, in order.
        parts: Whose they are: the calls in order, and how many are each one's.
    """

    events: list[Event]
    parts: list[tuple[Call, int]]

    @property
    def id(self) -> str:
        """Its id: that of its first event, so that it is the same when it has to be sent again."""
        return self.events[0].id


Outcome = tuple[Call, NotConfirmed | None]
"""What is to be told to a call; the line tells nobody by itself, since whoever is told may add the next call."""


class Line:
    """The calls that are not confirmed yet, in the order in which they came.

    Args:
        max_bytes: Bytes that may stand in line, at the most; one call alone may have more.
    """

    def __init__(self, max_bytes: int = MAX_WAITING) -> None:
        self._max_bytes = max_bytes
        # A call that is given up leaves from anywhere at once. A plain dict would walk over all that has left before.
        self._calls: OrderedDict[Call, None] = OrderedDict()
        self._flight: Message | None = None
        self.bytes = 0
        """Bytes that stand in line."""

    def oldest(self, *, sure: bool = False) -> float | None:
        """When the oldest call came whose caller waits; None where nobody waits.

        Args:
            sure: Count only calls of which surely nothing was taken.
        """
        return next((call.added for call in self._calls if not (sure and call.in_doubt)), None)

    @property
    def in_flight(self) -> bool:
        """Whether a message is published and has no answer yet."""
        return self._flight is not None

    def add(self, events: Sequence[Event], now: float, tell: Tell) -> Call:
        """Put a call at the end.

        Args:
            events: Its events, one at the least.
            now: The time, in seconds.
            tell: Takes the outcome.

        Raises:
            BusUnavailable: Too much stands in line.
        """
        call = Call(events, now, tell)
        if self.bytes and self.bytes + call.size > self._max_bytes:
            raise BusUnavailable(f"{self.bytes} bytes of events wait for the broker already", ids(call.events))
        self.bytes += call.size
        self._calls[call] = None
        return call

    def take(self) -> Message | None:
        """The next message to publish; None where one is in flight, or nothing waits."""
        if self._flight is not None:
            return None
        message = Message([], [])
        size = 0
        for call, event in self._waiting():
            size += len(event.payload)
            if message.events and (len(message.events) >= MAX_EVENTS or size > MAX_BYTES):
                break
            message.events.append(event)
            if call.flies:
                message.parts[-1] = (call, message.parts[-1][1] + 1)
            else:
                call.flies = True
                message.parts.append((call, 1))
        self._flight = message if message.events else None
        return self._flight

    def confirmed(self) -> list[Outcome]:
        """The message in flight is in the intake."""
        outcomes: list[Outcome] = []
        for call, count in self._landed():
            call.confirmed += count
            if call.confirmed == len(call.events) and not call.told:
                self._settle(call)
                outcomes.append((call, None))
        return outcomes

    def unsent(self) -> None:
        """The message in flight is surely in no queue; it is the next one again."""
        self._landed()

    def lost(self) -> None:
        """Nobody can say whether the message in flight, if any, was taken; it is the next one again."""
        for call, _ in self._landed():
            call.doubt = True

    def give_up(self, call: Call, reason: str) -> list[Outcome]:
        """End the waiting of one call; if it is in flight it may be taken all the same."""
        if call.told:
            return []
        self._settle(call)
        if call.in_doubt:
            return [(call, NotConfirmed(reason, ids(call.events)))]
        return [(call, BusUnavailable(reason, ids(call.events)))]

    def give_up_since(self, until: float, reason: str, *, sure: bool = False) -> list[Outcome]:
        """End the waiting of all calls that came until then.

        Args:
            until: The time, in seconds.
            reason: Why.
            sure: Leave those of which some events may have been taken.
        """
        late = list(takewhile(lambda call: call.added <= until, self._calls))
        return [outcome for call in late if not (sure and call.in_doubt) for outcome in self.give_up(call, reason)]

    def refuse(self, reason: str) -> list[Outcome]:
        """End the waiting of all: those behind a refused one were emitted before anybody could know of its refusal."""
        return self.give_up_since(float("inf"), reason)

    def _waiting(self) -> Iterator[tuple[Call, Event]]:
        for call in self._calls:
            for number in range(call.confirmed, len(call.events)):
                yield call, call.events[number]

    def _landed(self) -> list[tuple[Call, int]]:
        message, self._flight = self._flight, None
        if message is None:
            return []
        for call, _ in message.parts:
            call.flies = False
        return message.parts

    def _settle(self, call: Call) -> None:
        call.told = True
        self.bytes -= call.size
        # What is in flight is held by its message.
        self._calls.pop(call, None)


def unanswered(before: str) -> str:
    """Why an event is not confirmed while the connection is well.

    Args:
        before: What was wrong before it came about, or empty. It may be what is wrong still: of a permission that is
            missing a broker tells only whoever publishes, and ends the connection.
    """
    return f"no answer from the broker (before that: {before})" if before else "no answer from the broker"


def ids(events: Sequence[Event]) -> tuple[str, ...]:
    """The ids of events."""
    return tuple(event.id for event in events)
