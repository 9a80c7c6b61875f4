"""RabbitMQ for tests, as fixtures."""

import pytest
from support.broker import Broker


@pytest.fixture(scope="session")
def broker():
    """A node for all tests that do it no harm."""
    with Broker(tls="server") as node:
        yield node


@pytest.fixture
def vhost(broker):
    """The AMQP URL of a fresh virtual host."""
    url = broker.vhost()
    yield url
    broker.drop_vhost(url)


@pytest.fixture(scope="module")
def _module_broker():
    with Broker(tls="server") as node:
        yield node


@pytest.fixture
def own_broker(_module_broker):
    """A node of the module's own that may be killed, frozen and filled; it runs again when the next test begins."""
    _module_broker.recover()
    return _module_broker
