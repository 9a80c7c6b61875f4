"""The seam between bridges and the foreign systems that they carry from or to.

A bridge is a source with a mapping, or a sink. Its supervisor (`supervisor.py`) gives it one **life** after the other:
it calls `run`, and when that raises or returns it tells why, waits (longer each time), and calls `run` again. So a
source or a sink needs no reconnect loop of its own: it connects, says `established`, does its work, and raises when it
can't go on. Nothing that it raises harms another bridge.

A new kind is a module in `sources/` or `sinks/` with

- `Options`: a frozen `msgspec.Struct` with `forbid_unknown_fields=True, kw_only=True`: the keys of the table
  `[bridge.source]` or `[bridge.sink]`, without `kind`. msgspec checks the types; what types can't say is checked in
  `__post_init__`, which raises ValueError with what is wanted. A field's name that holds `url`, `secret` or `password`
  is never quoted in an error.
- `make(options, surroundings)`: makes the source or the sink. It starts nothing, connects to nothing and reads no files
  but those that the options name. It raises `ConfigError` where the options can't be carried out.
- `look(options, surroundings)`: a coroutine for `towerbus doctor`: looks at the foreign system, changes nothing, and
  returns findings (`towerbus.doctor.findings`). It may raise anything; that becomes a finding.

and a line in `kinds.py`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Interface

from towerbus.bridge.message import Message
from towerbus.errors import ConfigError
from towerbus.event import Event
from towerbus.positions import Position


class Surroundings(NamedTuple):
    """What a bridge is made with.

    Attributes:
        name: The bridge's name: letters, digits, `_` and `-`. Give connections names with it, and log it.
        reactor: Connects, listens, calls later and tells the time (`reactor.seconds()` never jumps).
        directory: Where the bridge may keep files of its own, made and writable when `run` is called; None where no
            `--bridge-state` is given. Whoever needs it calls `needed_directory` in `make`.
        max_payload: Bytes in an event's payload, at the most.
    """

    name: str
    reactor: Any
    directory: Path | None
    max_payload: int

    def needed_directory(self, why: str) -> Path:
        """The directory, for a kind that can't do without.

        Args:
            why: What is kept there, for the error: "the spool is kept".

        Raises:
            ConfigError: There is none.
        """
        if self.directory is None:
            raise ConfigError(f"{why} in a directory: give one with --bridge-state, on a local disk")
        return self.directory


class Measure(NamedTuple):
    """A number that a source or a sink shows in `/metrics`, as a gauge `towerbus_bridge_NAME{bridge="..."}`.

    Attributes:
        name: In snake_case, with its unit: `spool_bytes`.
        text: What it is, on one line.
        value: The number now.
    """

    name: str
    text: str
    value: float


class IFeed(Interface):
    """The bus's side, as a source sees it."""

    def established() -> None:
        """Say that the foreign system answers and messages can come: the bridge is well, its next pause is short."""

    def trouble(text: str) -> None:
        """Say what is wrong while the life goes on (a spool that is full); an empty text says that it is over.

        It stands in `/readyz`, in `/metrics` and once in the log. `established` and the end of a life clear it.
        """

    def forward(messages: Sequence[Message]) -> Deferred[None]:
        """Map messages to events and put these on the bus, in this order.

        Its answer is the acknowledgement. One call at a time, and the next only when this one has fired: so messages
        arrive in order, and what waits is bounded by the source. Some hundred messages in a call make it fast.

        What the mapping filters out is passed over; what can't be mapped is buried: put in the bus's dead queue with
        the reason. Both count as forwarded.

        Returns:
            A Deferred that fires when every one of them is confirmed: in the log or in the intake, or in the dead
            queue. Now the source acknowledges them to the foreign system. While the bus is away it waits, and tries
            again with the same ids for as long as it takes; it never fails. It may be cancelled, as it is when the life
            is ended from outside; what was under way may be taken all the same, so unacknowledged messages must come
            with the same ids in the next life.
        """

    def bury(message: Message, reason: str) -> Deferred[None]:
        """Put a message in the dead queue that is not even fit to be mapped; otherwise like `forward`."""


class ISource(Interface):
    """Where messages come from."""

    def run(feed: IFeed) -> Coroutine[Any, Any, None]:
        """Live once: connect, and forward messages until it is cancelled or can't go on.

        When the bridge is stopped, or its process ends, the coroutine is cancelled: whatever it awaits fails with
        `CancelledError`. It lets go of what it holds in a `finally`, in bounded time, and may await there.

        Raises:
            Exception: Why it can't go on, with a text for a person that names what to mend. The next life follows.
        """

    def measures() -> Sequence[Measure]:
        """Numbers for `/metrics`; may be empty. Asked at any time, also between lives."""


class Outgoing(NamedTuple):
    """An event on its way to a sink.

    Attributes:
        event: The event; its `id` is the same when it is given again.
        position: Its place in the log.
    """

    event: Event
    position: Position


class IOutflow(Interface):
    """The bus's side, as a sink sees it."""

    def established() -> None:
        """Say that the foreign system answers: the bridge is well, its next pause is short."""

    def trouble(text: str) -> None:
        """Say what is wrong while the life goes on; an empty text says that it is over. As `IFeed.trouble`."""

    def take(limit: int, size: int) -> Deferred[Sequence[Outgoing]]:
        """The next events of the topics that the bridge carries, in the order of the log.

        A life begins behind the last event that was confirmed. One call at a time.

        Args:
            limit: Events, at the most.
            size: Bytes of their payloads together, at the most; one alone may have more.

        Returns:
            A Deferred with one event or more; it waits while there are none, or the log can't be read.
        """

    def confirmed(position: Position) -> Deferred[None]:
        """Say that all events up to a position, and with it, are where they belong.

        Returns:
            A Deferred that fires when the position is kept: a restart goes on behind it. Until then they may be given
            again, with the same ids.
        """

    def bury(outgoing: Outgoing, reason: str) -> Deferred[None]:
        """Put an event that the foreign system will never take in the dead queue, with the reason.

        Returns:
            A Deferred that fires when it is there. It is confirmed by `confirmed`, as others are.
        """


class ISink(Interface):
    """Where events go."""

    def run(outflow: IOutflow) -> Coroutine[Any, Any, None]:
        """Live once: connect, and send events on until it is cancelled or can't go on. As `ISource.run`."""

    def measures() -> Sequence[Measure]:
        """Numbers for `/metrics`, as `ISource.measures`."""
