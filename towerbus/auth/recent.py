"""What was found out a moment ago, remembered in bounded memory; and one question at a time for each key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values that hold until a moment; of too many, the one that was used longest ago is forgotten.

    Args:
        limit: Values that are kept, at the most.
        seconds: Tells the time.
    """

    def __init__(self, limit: int, seconds: Callable[[], float]) -> None:
        self._limit = limit
        self._seconds = seconds
        self._held: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        """The value, or None where there is none that still holds."""
        held = self._held.get(key)
        if held is None:
            return None
        value, until = held
        if until <= self._seconds():
            del self._held[key]
            return None
        self._held.move_to_end(key)
        return value

    def put(self, key: K, value: V, until: float) -> None:
        """Remember a value until a moment of the same clock."""
        self._held[key] = (value, until)
        self._held.move_to_end(key)
        if len(self._held) > self._limit:
            self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()


class Shared(Generic[K, V]):
    """One question in flight for each key, however many want the answer."""

    def __init__(self) -> None:
        self._waiting: dict[K, list[Deferred[V]]] = {}

    def ask(self, key: K, question: Callable[[], Deferred[V]]) -> Deferred[V]:
        """Wait for the answer to the question that is in flight for the key; ask it where there is none.

        Returns:
            A Deferred of the caller's own: to cancel it ends neither the question nor the wait of the others.
        """
        waiter: Deferred[V] = Deferred()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(waiter)
            return waiter
        self._waiting[key] = [waiter]
        question().addBoth(self._tell, key)
        return waiter

    def _tell(self, answer: V | Failure, key: K) -> None:
        for waiter in self._waiting.pop(key):  # one that was cancelled lets this pass
            if isinstance(answer, Failure):
                waiter.errback(answer)
            else:
                waiter.callback(answer)
