"""The sink `amqp`, between two sessions."""

from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, succeed

from towerbus.bridge.interface import Outgoing, Surroundings
from towerbus.bridge.sinks import amqp
from towerbus.event import event
from towerbus.positions import Position


class Outflow:
    """One event, and a disk that takes its time."""

    def __init__(self):
        self.confirmations = []
        self.takes = 0

    def take(self, limit, size):
        self.takes += 1
        found = Outgoing(event("jobs", "x", b'{"n":1}', id="n1"), Position("e", 1, 1, 0))
        return succeed([found]) if self.takes == 1 else Deferred()

    def confirmed(self, position):
        self.confirmations.append((position, Deferred()))
        return self.confirmations[-1][1]


@ensureDeferred
async def test_a_position_that_was_not_kept_as_the_session_ended_is_kept_in_the_next(monkeypatch):
    """Nothing may come behind it for long, and until then a restart would give its events again."""
    sessions = []

    async def hold(broker, name, reactor, session, told):
        sessions.append(session)

    class Channel:
        async def confirm(self):
            pass

    class Connection:
        async def channel(self):
            return Channel()

    monkeypatch.setattr(amqp, "hold", hold)
    monkeypatch.setattr(amqp, "publish", lambda *given, **named: succeed(None))
    sink = amqp.make(amqp.Options(url="amqp://h/", exchange=""), Surroundings("lake", None, None, 1000))
    outflow = Outflow()
    await sink.run(outflow)
    first = Deferred.fromCoroutine(sessions[0](Connection(), lambda: None))
    assert len(outflow.confirmations) == 1
    first.cancel()
    first.addErrback(lambda failure: failure.trap(CancelledError))
    second = Deferred.fromCoroutine(sessions[0](Connection(), lambda: None))
    assert [position for position, _ in outflow.confirmations] == [Position("e", 1, 1, 0)] * 2
    outflow.confirmations[1][1].callback(None)
    assert outflow.takes == 2
    second.cancel()
    second.addErrback(lambda failure: failure.trap(CancelledError))
