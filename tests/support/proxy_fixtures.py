"""Proxies for tests that block the reactor, as a fixture."""

import pytest
from support.proxy import BlockingProxy, ProxyThread


@pytest.fixture(scope="session")
def _proxy_thread():
    thread = ProxyThread()
    yield thread
    thread.stop()


@pytest.fixture
def blocking_proxy(_proxy_thread):
    """A function that makes a `BlockingProxy` in front of a port; it ends with the test."""
    made = []

    def make(port):
        made.append(BlockingProxy(_proxy_thread, port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.stop()
