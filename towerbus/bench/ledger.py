"""The account of one client's events: what it must get, what it got, and what is untrue about that. Pure.

A client gets the events of its feed in order, each once. Where it replaces its set while events flow, the place in the
log at which the one set ends and the other begins is the server's to choose. There must be one: all events of the old
set before it have come, and all of the new one behind it. It stands before the first event of the old set that has not
come, and before what was sent after the reply. `towerbus.v1` tells which place it is: there the account is exact, see
`seams`. In `tower` the last events of a topic that is left, and the first of one that joins, could be missing unseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from towerbus.bench.schedule import NEVER, Feed
from towerbus.bench.seams import Seams

LOST, REPEATED, DISORDERED, CHANGED, STRAY = "lost", "repeated", "out of order", "changed", "stray"
DROPPED, REFUSED, TOLD = "dropped", "refused", "told lost"
UNCONFIRMED = "not confirmed"
KINDS = (LOST, REPEATED, DISORDERED, CHANGED, STRAY, DROPPED, REFUSED, TOLD, UNCONFIRMED)
"""What can be untrue."""
MAX_EXAMPLES = 10
"""How many of a kind are told in words."""
MAX_MISSING = 10_000
"""Numbers that are kept of what one client misses; what is missing beyond that is counted as lost at once."""


class Faults:
    """What was found to be untrue, by all clients together.

    Attributes:
        counts: How often, by kind.
        total: How often in all.
        examples: The first ones of each kind, in words.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.total = 0
        self.examples: list[str] = []

    def note(self, kind: str, text: str, times: int = 1) -> None:
        """Note something untrue.

        Args:
            kind: One of `KINDS`.
            text: What it was about, for a person.
            times: How often.
        """
        if self.counts[kind] < MAX_EXAMPLES:
            self.examples.append(f"{kind}: {text}")
        self.counts[kind] += times
        self.total += times

    def add(self, counts: Counter[str], examples: Sequence[str]) -> None:
        """Add what another process found."""
        self.counts += counts
        self.total += counts.total()
        self.examples += examples


class Ledger:
    """One client's account.

    Args:
        name: The client's, in faults.
        feed: What it gets.
        faults: Where what is untrue is noted.

    Attributes:
        feed: What it gets now.
        next: The number from which on it wants events.
        settled: Whether it is known where its feed has begun.
        seams: Its sets, where it is told at which places they are replaced; None where not, or not yet.
    """

    __slots__ = ("_boundary", "_faults", "_joined_at", "_missing", "feed", "name", "next", "seams", "settled")

    def __init__(self, name: str, feed: Feed, faults: Faults) -> None:
        self.name = name
        self.feed = feed
        self.next = 0
        self.settled = True
        self.seams: Seams | None = None
        self._boundary = 0
        self._joined_at = 0.0
        self._faults = faults
        self._missing: set[int] | None = None

    def begin(self, feed: Feed, number: int) -> None:
        """It has subscribed while nothing was under way: from this number on it gets everything of the feed."""
        self.feed, self.next, self.settled = feed, number, True

    def replace(self, feed: Feed, now: float, position: str | None = None) -> None:
        """The server says that the set is replaced now, and has said where if it has told a position."""
        if self.seams is not None and position is not None:
            self._owe(self.seams.replaced(feed, position, self.next))
        self._boundary = self.feed.following(self.next if self.settled else self._boundary)
        self.feed, self.settled, self._joined_at = feed, False, now

    def resume(self, now: float) -> None:
        """The server says that events are lost, and that is noted: whatever comes next is where it goes on."""
        self._boundary, self.settled, self._joined_at, self.seams = NEVER, False, now, None

    def take(self, number: int, sent: Callable[[int], float]) -> bool:
        """An event has come whose content is right.

        Args:
            number: Its number.
            sent: When an event was sent, by its number.

        Returns:
            Whether it was wanted: it counts as delivered.
        """
        if number < self.next:
            return self._late(number)
        if number not in self.feed:
            self._faults.note(STRAY, f"{self.name} got event {number}, to which it is not subscribed")
            return False
        if (first := self._owed(number, sent)) < number:
            self._miss(first, number)
        self._go_on(number)
        return True

    def changed(self, number: int | None, text: str) -> None:
        """An event has come that is not what was emitted; it stands for the one that should have come."""
        self._faults.note(CHANGED, f"{self.name} got event {'?' if number is None else number}: {text}")
        if self.settled:
            wanted = self.feed.following(self.next)
        else:
            wanted = NEVER if number is None or number < self.next or number not in self.feed else number
        if wanted != NEVER:
            self._go_on(wanted)

    def complete(self, end: int, sent: Callable[[int], float]) -> bool:
        """Whether nothing more has to come, of the events before a number."""
        return self._owed(end, sent) >= end

    def excuse(self) -> None:
        """Nothing more comes, and nothing more is wanted; what others came behind is lost all the same."""
        for number in sorted(self._missing or ()):
            self._faults.note(LOST, f"{self.name} did not get event {number}")
        self._missing = None

    def close_account(self, end: int, sent: Callable[[int], float]) -> None:
        """Nothing more comes: what is still wanted of the events before a number is lost."""
        if self.seams is not None:
            self._owe(self.seams.ended(self.next))
        if (first := self._owed(end, sent)) < end:
            self._miss(first, end)
        self.excuse()
        self.next = end

    def owes_since(self, sent: Callable[[int], float]) -> float:
        """When the first event was sent that it has not got; 0 where none was."""
        first = self.feed.following(self.next)
        return 0.0 if first == NEVER else sent(first)

    def _late(self, number: int) -> bool:
        missing = self._missing is not None and number in self._missing
        if missing or (self.seams is not None and self.seams.may_yet_come(number)):
            self._owe_no_more(number)
            self._faults.note(DISORDERED, f"{self.name} got event {number} behind event {self.next - 1}")
            return True
        if number not in self.feed:
            self._faults.note(STRAY, f"{self.name} got event {number}, to which it is not subscribed")
        else:
            self._faults.note(REPEATED, f"{self.name} got event {number} again, after event {self.next - 1}")
        return False

    def _owed(self, number: int, sent: Callable[[int], float]) -> int:
        """The first event that must have come before this one; where none is, this one or one behind it.

        A feed that is not settled must have begun with the first missing event of the old one, at the latest, and with
        what was sent after the server had said that it has.
        """
        if self.settled:
            return self.feed.following(self.next)
        if self.feed.preceding(number) >= self._boundary:
            # The last that should have come stands behind one of the old set that has not.
            return self.feed.following(self._boundary)
        late = self.feed.following(self.next)
        while late < number and sent(late) <= self._joined_at:
            late = self.feed.following(late + 1)
        return late

    def _go_on(self, number: int) -> None:
        """An event, or what stands for it, has come."""
        if not self.settled and self.seams is not None:
            self.seams.came(number)
        self.next, self.settled = number + 1, True

    def _owe_no_more(self, number: int) -> None:
        """It has come, behind others."""
        if self._missing is not None:
            self._missing.discard(number)
        if self.seams is not None:
            self.seams.came(number)

    def _owe(self, numbers: set[int]) -> None:
        """These should have come."""
        if numbers:
            self._missing = (self._missing or set()) | numbers

    def _miss(self, first: int, end: int) -> None:
        missing = self.feed.between(first, end, MAX_MISSING)
        beyond = self.feed.count(end) - self.feed.count(missing[-1] + 1) if missing else 0
        if beyond:
            self._faults.note(LOST, f"{self.name} did not get the {beyond} events behind {missing[-1]}", beyond)
        self._owe(set(missing))
