"""The jobs whose events are asked for: from the first word of their status until a while after the last. Pure."""

from __future__ import annotations

from collections.abc import Iterator

LINGER = 300.0
"""Seconds after a job's end for which its events are still asked for: they come through another way than its status."""
MAX_FOLLOWED = 10_000
"""Jobs that are followed at once, at the most; beyond that the one that has been followed longest is let go."""


class Followed:
    """The groups of the jobs that are followed, in the order in which they were heard of."""

    def __init__(self, limit: int = MAX_FOLLOWED, linger: float = LINGER) -> None:
        self._limit = limit
        self._linger = linger
        self._groups: dict[str, None] = {}
        self._leaving: dict[str, float] = {}

    def heard(self, job: str, finished: bool, now: float) -> tuple[list[str], list[str]]:  # noqa: FBT001
        """Take notice of a job's status.

        Args:
            job: The group of its events, `job_events-42`.
            finished: Whether it has come to its end.
            now: Seconds, of a clock that never jumps.

        Returns:
            The groups to ask for, and those to let go.
        """
        joined = [] if job in self._groups else [job]
        self._groups[job] = None
        if finished:
            self._leaving.setdefault(job, now + self._linger)
        else:
            # It runs again, or a late word came out of turn.
            self._leaving.pop(job, None)
        left = [group for group, end in self._leaving.items() if end <= now]
        if len(self._groups) - len(left) > self._limit:
            left.append(next(group for group in self._groups if group not in left))
        for group in left:
            self._groups.pop(group, None)
            self._leaving.pop(group, None)
        return joined, left

    def __contains__(self, group: object) -> bool:
        return group in self._groups

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)
