"""The emitter for Twisted programs, against the real HTTP listener."""

import pytest
import pytest_twisted
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.protocols.policies import WrappingFactory
from zope.interface import implementer
from zope.interface.verify import verifyObject

from towerbus.access import Grants, Identity
from towerbus.async_emitter import AsyncEmitter, EmitRefusedError
from towerbus.auth.interface import IAuthenticator
from towerbus.errors import BusUnavailable, ConfigError, NotConfirmed, PeerError
from towerbus.intake import http
from towerbus.intake.interface import IIntake


@implementer(IIntake)
class Intake:
    """Keeps what it gets; gives the answers that it was told, then confirms."""

    def __init__(self):
        self.events, self.answers = [], []

    def emit(self, events):
        self.events.extend(events)
        return self.answers.pop(0) if self.answers else succeed(None)


@implementer(IAuthenticator)
class Producers:
    """Knows one token."""

    def authenticate(self, credential):
        return Identity(1, grants=Grants(emit=("jobs/*",))) if credential.secret == "good" else None


class Bus:
    """The HTTP listener and an emitter."""

    async def start(self, token="good", **options):
        self.intake = Intake()
        assert verifyObject(IIntake, self.intake)
        self.connections = WrappingFactory(http.site(self.intake, Producers(), reactor))
        self.connections.noisy = False
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.connections)
        self.emitter = AsyncEmitter(reactor, f"http://127.0.0.1:{self.port.getHost().port}", token, **options)
        return self

    async def stop(self):
        await self.emitter.close()
        await until(lambda: not self.connections.protocols)
        await self.port.stopListening()


@pytest_twisted.ensureDeferred
async def test_events_are_emitted_in_order_byte_for_byte_and_their_ids_come_back():
    bus = await Bus().start()
    assert await bus.emitter.emit("jobs", "x", b'{"n":  1}', "mine") == "mine"
    ids = await bus.emitter.emit_many([{"group": "jobs", "type": n, "payload": {"n": n}} for n in range(3)])
    assert await bus.emitter.emit_many([]) == []
    assert [event.id for event in bus.intake.events] == ["mine", *ids]
    assert [event.payload for event in bus.intake.events] == [b'{"n":  1}', b'{"n":0}', b'{"n":1}', b'{"n":2}']
    await bus.stop()


@pytest_twisted.ensureDeferred
async def test_what_may_pass_is_tried_again_with_the_same_id():
    bus = await Bus().start()
    bus.intake.answers = [fail(BusUnavailable("away")), fail(NotConfirmed("in doubt"))]
    id_ = await bus.emitter.emit("jobs", "x", {"n": 1})
    assert [event.id for event in bus.intake.events] == [id_] * 3
    await bus.stop()


@pytest.mark.parametrize(("token", "group", "status"), [("bad", "jobs", 401), ("good", "secrets", 403)])
@pytest_twisted.ensureDeferred
async def test_what_is_refused_is_not_tried_again(token, group, status):
    bus = await Bus().start(token)
    with pytest.raises(EmitRefusedError) as caught:
        await bus.emitter.emit(group, "x", {"n": 1})
    assert caught.value.status == status
    await bus.stop()


@pytest_twisted.ensureDeferred
async def test_what_is_wrong_fails_before_anything_is_sent():
    bus = await Bus().start()
    with pytest.raises(PeerError, match="group"):
        await bus.emitter.emit("a b", "x", {"n": 1})
    assert bus.intake.events == []
    await bus.stop()


@pytest_twisted.ensureDeferred
async def test_no_answer_in_time_is_doubt():
    bus = await Bus().start(timeout=0.3)
    bus.intake.answers = [Deferred()]
    with pytest.raises(NotConfirmed, match="no answer in time") as caught:
        await bus.emitter.emit("jobs", "x", {"n": 1}, "mine")
    assert (caught.value.id, caught.value.sure) == ("mine", False)
    await bus.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there_has_taken_nothing():
    emitter = AsyncEmitter(reactor, "http://127.0.0.1:9", timeout=0.3)
    with pytest.raises(NotConfirmed) as caught:
        await emitter.emit("jobs", "x", {"n": 1}, "mine")
    assert (caught.value.id, caught.value.sure) == ("mine", True)
    await emitter.close()


@pytest_twisted.ensureDeferred
async def test_one_that_is_cancelled_is_not_tried_again():
    bus = await Bus().start()
    bus.intake.answers = [Deferred()]
    emitting = bus.emitter.emit("jobs", "x", {"n": 1})
    await until(lambda: bus.intake.events)
    emitting.cancel()
    with pytest.raises(CancelledError):
        await emitting
    assert len(bus.intake.events) == 1
    await bus.stop()


def test_a_websocket_url_is_not_where_to_emit():
    with pytest.raises(ConfigError, match="HTTP listener"):
        AsyncEmitter(reactor, "ws://h:8051/websocket/")
