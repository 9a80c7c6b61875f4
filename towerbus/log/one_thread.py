"""A thread of one's own: what blocks is done in it, one call after the other, off the reactor's thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


class OneThread:
    """The thread begins with the first call. It does not keep a process from ending, once its call is done.

    Args:
        reactor: Where the answers go.
        name: The thread's, for whoever looks at the process.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call a function in the thread, behind the calls that were asked for before.

        Returns:
            Its outcome. Cancelled, it fails at once; the call itself goes on.
        """
        outcome: Deferred[T] = Deferred()
        try:
            call = self._executor.submit(function, *args, **kwargs)
        except RuntimeError:  # it is closed
            return fail(Failure())
        call.add_done_callback(lambda done: self._reactor.callFromThread(_tell, outcome, done))
        return outcome

    def wait_for(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the thread and block until it is done: at start only."""
        return self._executor.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """Let the thread end when it has done what was asked for; more is refused."""
        self._executor.shutdown(wait=False)


def _tell(outcome: Deferred[T], done: Future[T]) -> None:
    if outcome.called:
        return
    error = done.exception()
    if error is not None:
        outcome.errback(Failure(error))
    else:
        outcome.callback(done.result())
