"""The sink `amqp`, between two sessions."""

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from towerbus.amqp.errors import NOT_FOUND, PRECONDITION_FAILED, ChannelClosed
from towerbus.bridge.interface import Outgoing, Surroundings
from towerbus.bridge.sinks import amqp
from towerbus.errors import TowerbusError
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


async def sessions_of(monkeypatch, answers, in_flight, outflow):
    """Run a sink, and return what begins a session on a channel that answers so."""
    begun = []

    async def hold(broker, name, reactor, session, told):
        begun.append(session)

    class Channel:
        async def confirm(self):
            pass

    class Connection:
        async def channel(self):
            return Channel()

    monkeypatch.setattr(amqp, "hold", hold)
    monkeypatch.setattr(amqp, "publish", lambda *given, message_id, **named: answers(message_id))
    options = amqp.Options(url="amqp://h/", exchange="", in_flight=in_flight)
    sink = amqp.make(options, Surroundings("lake", None, None, 1000))
    await sink.run(outflow)
    return lambda: Deferred.fromCoroutine(begun[0](Connection(), lambda: None))


@ensureDeferred
async def test_a_position_that_was_not_kept_as_the_session_ended_is_kept_in_the_next(monkeypatch):
    """Nothing may come behind it for long, and until then a restart would give its events again."""
    outflow = Outflow()
    begin = await sessions_of(monkeypatch, lambda _: succeed(None), 1, outflow)
    first = begin()
    assert len(outflow.confirmations) == 1
    first.cancel()
    first.addErrback(lambda failure: failure.trap(CancelledError))
    second = begin()
    assert [position for position, _ in outflow.confirmations] == [Position("e", 1, 1, 0)] * 2
    outflow.confirmations[1][1].callback(None)
    assert outflow.takes == 2
    second.cancel()
    second.addErrback(lambda failure: failure.trap(CancelledError))


class Three:
    """Three events, and what becomes of them."""

    def __init__(self):
        self.buried, self.kept = [], []
        self.rest = [
            Outgoing(event("jobs", "x", b'{"n":%d}' % n, id=f"n{n}"), Position("e", 1, n, 0)) for n in range(3)
        ]

    def take(self, limit, size):
        found, self.rest = self.rest, []
        return succeed(found) if found else Deferred()

    def confirmed(self, position):
        self.kept.append(position.offset)
        return succeed(None)

    def bury(self, outgoing, reason):
        self.buried.append((outgoing.event.id, reason))
        return succeed(None)


@pytest.mark.parametrize("in_flight", [1, 64])
@ensureDeferred
async def test_an_event_larger_than_the_broker_takes_is_buried_and_the_rest_goes_on(monkeypatch, in_flight):
    """The broker closes the channel for it; with several in flight it does not say for which."""
    published = []
    closed = ChannelClosed(PRECONDITION_FAILED, "PRECONDITION_FAILED - message size 30019 is larger than configured")
    open_ = [True]

    def answer(id_):
        published.append(id_)
        open_[0] = open_[0] and id_ != "n1"
        return succeed(None) if open_[0] else fail(closed)

    outflow = Three()
    begin = await sessions_of(monkeypatch, answer, in_flight, outflow)
    for _ in range(4):
        open_[0] = True
        session = begin()
        if not session.called:
            break
        with pytest.raises(ChannelClosed):
            await session
    assert [id_ for id_, _ in outflow.buried] == ["n1"]
    assert "message size 30019" in outflow.buried[0][1]
    assert published[-1] == "n2"
    assert outflow.kept[-1] == 2
    session.cancel()
    session.addErrback(lambda failure: failure.trap(CancelledError))


@ensureDeferred
async def test_an_exchange_that_was_deleted_is_not_put_down_to_the_worker(monkeypatch):
    gone = ChannelClosed(NOT_FOUND, "NOT_FOUND - no exchange 'lake' in vhost '/'")
    begin = await sessions_of(monkeypatch, lambda _: fail(gone), 1, Three())
    with pytest.raises(TowerbusError, match="is not there: make it, or mend its name"):
        await begin()
