"""Taking turns at a socket that processes share."""

import socket

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from towerbus.turns import LONGEST, Turns, pause


class Taker(Factory):
    """One of those who accept; it counts its clients."""

    def __init__(self, listening, has):
        self.has = has
        self.taken = Deferred()
        self.port = reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, self)
        self.turns = Turns(self.port, lambda: self.has, reactor)

    async def end(self):
        self.turns.stop()
        await self.port.stopListening()

    def buildProtocol(self, address):
        self.has += 1
        taken, self.taken = self.taken, Deferred()
        taken.callback(self)
        return Protocol()


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


@pytest_twisted.ensureDeferred
async def test_clients_go_to_the_one_with_fewer_until_all_have_as_many(listening):
    takers = [Taker(listening, 0), Taker(listening, 64)]
    clients = []
    for _ in range(40):
        taken = [taker.taken for taker in takers]
        clients.append(socket.create_connection(listening.getsockname()))
        await _first(taken)
    assert [taker.has for taker in takers] == [40, 64]
    for client in clients:
        client.close()
    for taker in takers:
        await taker.end()


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_closed_while_it_waits_accepts_nothing(listening):
    taker = Taker(listening, 10_000)
    with socket.create_connection(listening.getsockname()):
        knocked = Deferred()
        stop = taker.port.stopReading
        taker.port.stopReading = lambda: (stop(), knocked.callback(None))
        await knocked
        taker.port.stopReading = stop
        await taker.end()
    # A turn that still came would be a timer left behind, which every test is looked at for.
    assert taker.has == 10_000


def test_the_pause_grows_slowly_and_has_an_end():
    pauses = [pause(count) for count in (0, 1, 10, 100, 1000, 10**9)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST


def _first(outcomes):
    """Fires when the first of them does."""
    first = Deferred()
    for outcome in outcomes:
        outcome.addCallback(lambda taker: (None if first.called else first.callback(None), taker)[1])
    return first
