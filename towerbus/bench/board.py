"""What the emitting process and those with the clients tell each other all the time: numbers in shared memory."""

from __future__ import annotations

import mmap

_DOUBLE = 8


class Board:
    """Shared by the processes that are forked after it is made. Each number has one writer.

    Args:
        events: Events of the run.
        processes: Processes with clients.

    Attributes:
        sent: For each event when it was sent, or was due to be, on the monotonic clock; 0 before.
        delivered: For each process how many deliveries it has counted.
        target: For each process, after how many it shall tell that it has them all.
        faults: For each process how many untruths it has found.
        arriving: For each process how many clients are not yet let in, or not yet subscribed.
        hurried: One number, 1 when nobody shall wait any more for what has not come.
    """

    def __init__(self, events: int, processes: int) -> None:
        sizes = [events, processes, processes, processes, processes, 1]
        view = memoryview(mmap.mmap(-1, max(1, sum(sizes)) * _DOUBLE)).cast("d")
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        self.sent, self.delivered, self.target, self.faults, self.arriving, self.hurried = (
            view[start : start + size] for start, size in zip(starts, sizes, strict=True)
        )

    def when(self, number: int) -> float:
        """When an event was sent, or was due to be: for ever ahead where it was not."""
        return (self.sent[number] or float("inf")) if 0 <= number < len(self.sent) else float("inf")
