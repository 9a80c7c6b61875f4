"""The wiring of `twistd towerbus-server`: the clients' side of a bus in RabbitMQ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService
from twisted.web.resource import IResource

from towerbus.amqp.intake import AmqpIntake
from towerbus.amqp.log import AmqpLog
from towerbus.amqp.url import Broker, of_bus
from towerbus.auth.chain import authenticator
from towerbus.config import Settings
from towerbus.errors import ConfigError
from towerbus.giving_up import give_up
from towerbus.hub import Hub, hub
from towerbus.intake.http import site
from towerbus.keeping import Keeping, keeping
from towerbus.listening import Gate, Listener
from towerbus.ops.canary import Canary
from towerbus.ops.health import Alive, Ready
from towerbus.ops.metrics import Bus, Clients, Metrics, Running, Tail
from towerbus.ops.sessions import Sessions
from towerbus.options import SERVER
from towerbus.services import allow_connections, positions, serving, together


def server(settings: Settings, reactor: Any) -> IService:
    """Make it: HTTP is there from the start, the WebSocket when the log's end is known.

    Raises:
        ConfigError: The settings can't be carried out.
    """
    broker = _broker(settings)
    judge = authenticator(settings.auth, reactor)
    allow_connections()
    log, intake = _bus(broker, settings, reactor)
    clients = hub(settings, reactor, judge, log)
    factory = clients.factory
    canary = Canary(intake, log, reactor, settings.canary_interval, stale=factory.stale, fresh=factory.fresh)
    listener = Listener(reactor, settings.listen, factory, "--listen", lambda: len(factory.wires))
    websocket = Gate(listener, log.when_known, lambda text: give_up(reactor, text))

    def broken() -> Mapping[str, str]:
        hop = canary.broken()
        found = {} if hop is None else {hop.name: hop.reason}
        return found if websocket.open else {"listen": "the log's end is not known yet", **found}

    kept = keeping(settings, clients, judge, broken, reactor)
    pages = _pages(clients, log, intake, canary, kept)
    posts = site(intake, judge, reactor, max_payload=settings.max_payload, children=pages)
    http = Listener(reactor, settings.http, posts, "--http")
    kept.watch(listener, http)
    return kept.service(together(log, intake, *serving(clients, judge), http, canary), websocket)


def _broker(settings: Settings) -> Broker:
    broker = of_bus(settings.bus)
    if not settings.auth:
        raise ConfigError(
            "--auth: none is given, so nobody could be let in; wanted is jwt:PATH, tokens:FILE, callback:URL or "
            "session:URL (only twistd towerbus makes a token for everything)"
        )
    return broker


def _bus(broker: Broker, settings: Settings, reactor: Any) -> tuple[AmqpLog, AmqpIntake]:
    """Both ends of the bus. Whoever was let in once is let in again, when somebody has mended it."""

    def reading_refused(text: str) -> None:
        if not log.known:
            give_up(reactor, f"{SERVER}: {text}")

    def emitting_refused(text: str) -> None:
        if not intake.bus.reconnects:
            give_up(reactor, f"{SERVER}: {text}")

    log = AmqpLog(broker, reactor, tail_bytes=settings.tail_bytes, refused=reading_refused)
    intake = AmqpIntake(broker, reactor, name="intake", refused=emitting_refused)
    return log, intake


def _pages(clients: Hub, log: AmqpLog, intake: AmqpIntake, canary: Canary, kept: Keeping) -> Mapping[bytes, IResource]:
    """What the HTTP listener shows beside `/emit`."""

    def facts() -> Mapping[str, object]:
        age = {"age": round(canary.age, 3), "period": canary.freshness.period}
        return {"canary": age, **(positions(log) if log.known else {})}

    return {
        b"healthz": Alive(),
        b"readyz": Ready(kept.broken, facts),
        b"debug/sessions": Sessions(clients.factory, clients.factory.authenticator),
        b"metrics": Metrics(Clients(clients), Tail(log), Bus(log, intake, canary), Running(kept)),
    }
