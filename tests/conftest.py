"""What every test gets: a bound on its time, and a reactor that must be left as it was found.

pytest-twisted lets a logged failure, a leftover timer and an unhandled error pass; these two fixtures do not.
"""

from __future__ import annotations

import functools
import gc
import inspect
import signal

import hypothesis
import pytest
from support.broker_fixtures import _module_broker, broker, own_broker, vhost  # noqa: F401  # for all tests
from support.postgres_fixtures import _postgres_server, database, postgres  # noqa: F401
from support.proxy_fixtures import _proxy_thread, blocking_proxy  # noqa: F401
from twisted.internet import defer
from twisted.logger import globalLogPublisher

SECONDS = 60

# Times say nothing on a machine that is shared.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


def pytest_configure():
    """Let children be interrupted: a shell lets what it starts in the background ignore SIGINT, and that is inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Let collections pass over what stays to the end: there is one after each test."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Bound every async test; pytest-timeout's own signal would be swallowed by the reactor."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return
    from twisted.internet import reactor

    marker = pyfuncitem.get_closest_marker("seconds")
    limit = marker.args[0] if marker else SECONDS

    @functools.wraps(function)
    def bounded(**given):
        return defer.Deferred.fromCoroutine(function(**given)).addTimeout(limit, reactor)

    bounded.__dict__.pop("_pytest_twisted_mark", None)
    pyfuncitem.obj = bounded


@pytest.fixture(autouse=True)
def logged_failures():
    """Fail a test that leaves a logged failure, a timer or a socket behind; one that expects failures clears the list."""
    from twisted.internet import reactor

    failures = []

    def observe(event):
        if event.get("log_failure") is not None:
            failures.append(event["log_failure"])

    globalLogPublisher.addObserver(observe)
    calls, readers = set(reactor.getDelayedCalls()), set(reactor.getReaders())
    yield failures
    gc.collect()
    globalLogPublisher.removeObserver(observe)
    leaked = [call for call in reactor.getDelayedCalls() if call not in calls]
    for call in leaked:
        call.cancel()
    inner = reactor._internalReaders  # the reactor's own wakers
    left = [reader for reader in reactor.getReaders() if reader not in readers and reader not in inner]
    assert not failures, "\n".join(failure.getTraceback() for failure in failures)
    assert not leaked, f"timers left behind: {leaked}"
    assert not left, f"sockets left behind: {left}"
