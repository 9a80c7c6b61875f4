"""The loads: which topics there are, which event goes where, and what each client wants. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice

from towerbus.bench.schedule import Schedule
from towerbus.topics import Topic, emittable

STATUS = 0
"""The index of the topic that stands first: the one that all clients of a load have in common, where it has one."""
WALK = 3
"""Pages that a client of `navigation` sees at once; with each step one goes and one comes."""
_STATUS_EVERY = 4
"""Of so many events of `navigation` one is for all."""


class Name(StrEnum):
    """What a load is called on the command line."""

    TOPIC = "topic"
    TOWER_DAY = "tower-day"
    NAVIGATION = "navigation"
    STORM = "storm"
    SLOW = "slow"
    IDLE = "idle"


class Role(StrEnum):
    """What a client does."""

    BUSY = "busy"
    """It gets events and reads them at once."""
    SLOW = "slow"
    """It gets events and reads slowly."""
    IDLE = "idle"
    """It gets none."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a load is made of.

    Attributes:
        name: Which load.
        clients: How many there are.
        few: How many of them are slow (`slow`) or busy (`idle`).
        topics: How many topics (`topic`, `storm`, `slow`, `idle`), or pages (`navigation`).
        each: To how many of them each client is subscribed.
        jobs: Jobs (`tower-day`).
        status_share: The part of all events that are status changes, 0 to 1 (`tower-day`).
        mark: What the types of all topics begin with, so that nobody else has them.
    """

    name: Name
    clients: int
    few: int = 0
    topics: int = 1
    each: int = 1
    jobs: int = 1
    status_share: float = 0.0
    mark: str = ""

    def names(self) -> list[Topic]:
        """All topics; where there are idle clients, theirs stands last.

        Raises:
            TopicError: The mark makes names that no topic can have.
        """
        if self.name is Name.TOWER_DAY:
            jobs = [emittable("job_events", f"{self.mark}{job}") for job in range(1, self.jobs + 1)]
            return [emittable("jobs", f"{self.mark}status_changed"), *jobs]
        if self.name is Name.NAVIGATION:
            pages = [emittable("jobs", f"{self.mark}page-{page}") for page in range(self.topics)]
            return [emittable("jobs", f"{self.mark}status_changed"), *pages]
        made = [emittable("jobs", f"{self.mark}status_changed{_ending(number)}") for number in range(self.topics)]
        return [*made, emittable("jobs", f"{self.mark}idle")] if self.name is Name.IDLE else made

    def schedule(self, events: int) -> Schedule:
        """So many events, and where they go."""
        plan = list(islice(self._order(), events))
        if self.name is Name.NAVIGATION:
            # What comes last is for all: it shows that everything before it has come.
            plan[-1] = STATUS
        return Schedule(self.names(), plan)

    def role(self, client: int) -> Role:
        """What a client does. Those that differ are spread evenly."""
        if self.name in {Name.SLOW, Name.IDLE}:
            one_of_few = (client + 1) * self.few // self.clients > client * self.few // self.clients
            if one_of_few == (self.name is Name.SLOW):
                return Role.SLOW if one_of_few else Role.IDLE
        return Role.BUSY

    def wants(self, client: int, step: int = 0) -> Sequence[int]:
        """The topics of a client, by index.

        Args:
            client: Its number.
            step: How often it has replaced its set.
        """
        if self.name is Name.TOWER_DAY:
            return (STATUS, 1 + client % self.jobs)
        if self.name is Name.NAVIGATION:
            return (STATUS, *(1 + (client + step + page) % self.topics for page in range(WALK)))
        if self.role(client) is Role.IDLE:
            return (self.topics,)
        return tuple((client + number) % self.topics for number in range(self.each))

    def _order(self) -> Iterator[int]:
        """The topic of each event, for ever."""
        if self.name is Name.TOWER_DAY:
            return self._mixed(lambda number: (number + 1) * self.status_share // 1 > number * self.status_share // 1)
        if self.name is Name.NAVIGATION:
            return self._mixed(lambda number: number % _STATUS_EVERY == 0)
        return cycle(range(self.topics))

    def _mixed(self, is_status: Callable[[int], bool]) -> Iterator[int]:
        others = cycle(range(1, 1 + (self.jobs if self.name is Name.TOWER_DAY else self.topics)))
        number = 0
        while True:
            yield STATUS if is_status(number) else next(others)
            number += 1


def _ending(number: int) -> str:
    return f"-{number}" if number else ""
