"""Listening, now or later."""

import socket

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from towerbus.errors import ConfigError
from towerbus.listening import Gate, Listener


def listener(description="tcp:0:interface=127.0.0.1"):
    return Listener(reactor, description, Factory.forProtocol(Protocol), "--listen")


@pytest.fixture
def services():
    services = MultiService()
    services.startService()
    return services


@pytest_twisted.ensureDeferred
async def test_it_listens_while_it_runs(services):
    one = listener()
    one.setServiceParent(services)
    address = ("127.0.0.1", one.address.port)
    socket.create_connection(address).close()
    await services.stopService()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_what_is_no_endpoint_is_named():
    with pytest.raises(ConfigError, match="--listen: 'nonsense' is no endpoint"):
        listener("nonsense")


@pytest_twisted.ensureDeferred
async def test_a_gate_listens_when_it_may(services):
    ready, hopeless = Deferred(), []
    one = listener()
    gate = Gate(one, lambda: ready, hopeless.append)
    gate.setServiceParent(services)
    assert not gate.open
    ready.callback(None)
    assert gate.open
    socket.create_connection(("127.0.0.1", one.address.port)).close()
    await services.stopService()
    assert hopeless == []


@pytest_twisted.ensureDeferred
async def test_a_gate_that_can_not_listen_says_so(services):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ready, hopeless = Deferred(), []
        gate = Gate(listener(f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"), lambda: ready, hopeless.append)
        gate.setServiceParent(services)
        ready.callback(None)
        (text,) = hopeless
        assert "in use" in text
        assert not gate.open
    await services.stopService()


@pytest_twisted.ensureDeferred
async def test_a_gate_that_was_stopped_stays_shut(services):
    ready = Deferred()
    gate = Gate(listener(), lambda: ready, pytest.fail)
    gate.setServiceParent(services)
    await services.stopService()
    ready.callback(None)
    assert not gate.open
