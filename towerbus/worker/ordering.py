"""The order of events: what was delivered from the intake becomes the next record of the log. Pure.

A message may hold one event, many, or none. It is settled, so that it may be acknowledged, when all of its events are
in the log, or it is kept in the dead queue; and everything before it is settled too. An event is in the log when its
record was confirmed, not when it was published: what dies in between is delivered again, and must not look like a
repeat then. So there is one step at a time, and the window of ids grows when it is settled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from towerbus.errors import PeerError
from towerbus.event import Event
from towerbus.log.record import MAX_BYTES, MAX_EVENTS
from towerbus.worker.known import KnownLog

MAX_DEAD = 64
"""Messages that a step sends to the dead queue, at the most."""


class Delivered(Protocol):
    """A message from the intake."""

    @property
    def tag(self) -> int:
        """Its number; rises from message to message."""

    @property
    def body(self) -> bytes:
        """Its bytes."""


D = TypeVar("D", bound=Delivered)


class Step(NamedTuple):
    """What is to be done next, and may be settled when all of it is confirmed.

    Attributes:
        events: The next record's events, in order; none where there is nothing to write.
        dead: The messages that can't be taken, each with the reason.
        repeats: How many events were passed over, for they are in the log already.
        through: The last message that is settled with this step, and all before it with it; 0 for none.
        size: Bytes in the bodies of the messages that are settled with it.
    """

    events: tuple[Event, ...]
    dead: tuple[tuple[Delivered, str], ...]
    repeats: int
    through: int
    size: int


class Ordering:
    """What was delivered in one session with the broker, in order. A new session begins with a new one.

    Args:
        known: What is known of the log.
        read: Gives a message's events, or raises `PeerError` with why it can't be taken.
    """

    def __init__(self, known: KnownLog, read: Callable[[D], Sequence[Event]]) -> None:
        self._known = known
        self._read: Callable[..., Sequence[Event]] = read
        self._waiting: deque[Delivered] = deque()
        self._begun: Delivered | None = None
        self._rest: Sequence[Event] = ()
        self._next = 0
        self.size = 0
        """Bytes in the bodies of the messages that are not settled."""

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be taken."""
        return not self._waiting and self._begun is None

    def add(self, message: Delivered) -> None:
        """Take the next message from the intake."""
        self._waiting.append(message)
        self.size += len(message.body)

    def take(self) -> Step:
        """Say what is to be done next. The step before must have been settled.

        A step looks at no more events than one record may hold, whether they are repeats or not.
        """
        events: list[Event] = []
        dead: list[tuple[Delivered, str]] = []
        through, size, room = 0, 0, MAX_BYTES
        while len(events) < MAX_EVENTS and len(dead) < MAX_DEAD:
            if self._begun is None:
                if not self._waiting:
                    break
                self._begin(dead)
            room = self._cut(events, room)
            if self._next < len(self._rest):
                break
            assert self._begun is not None  # noqa: S101 - for the type checker
            through, size = self._begun.tag, size + len(self._begun.body)
            self._begun, self._rest = None, ()
        fresh = self._known.window.unseen(events)
        return Step(tuple(fresh), tuple(dead), len(events) - len(fresh), through, size)

    def settle(self, step: Step) -> int:
        """Take note that the step is done: its record is in the log, and its dead messages are kept.

        Returns:
            The last message that may be acknowledged, with all before it; 0 for none.
        """
        self._known.wrote(step.events)
        self.size -= step.size
        return step.through

    def _begin(self, dead: list[tuple[Delivered, str]]) -> None:
        """Open the next message; one that can't be taken has no events."""
        message = self._waiting.popleft()
        try:
            self._rest = self._read(message)
        except PeerError as error:
            dead.append((message, str(error)))
        self._begun, self._next = message, 0

    def _cut(self, events: list[Event], room: int) -> int:
        """Move events of the open message to a record, as far as they fit.

        Returns:
            The bytes for which there is still room.
        """
        rest, number = self._rest, self._next
        while number < len(rest):
            length = len(rest[number].payload)
            if events and (length > room or len(events) >= MAX_EVENTS):
                break
            events.append(rest[number])
            room -= length
            number += 1
        self._next = number
        return room
