"""The wiring: makes services of settings. No rules and no I/O of its own."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.web.resource import IResource

from towerbus.auth.chain import authenticator
from towerbus.auth.interface import IAuthenticator
from towerbus.auth.tokens import OneRunToken
from towerbus.config import Settings
from towerbus.errors import ConfigError
from towerbus.hub import Hub, hub
from towerbus.intake.http import site
from towerbus.keeping import keeping
from towerbus.listening import Listener
from towerbus.log.interface import ILog
from towerbus.log.memory import MEMORY_AGE, MEMORY_BYTES, MemoryLog
from towerbus.log.sqlite import SQLITE_AGE, SQLITE_BYTES, SqliteLog
from towerbus.ops.health import Alive, Ready
from towerbus.ops.metrics import Clients, Metrics, Running, Tail
from towerbus.ops.sessions import Sessions
from towerbus.urls import shown
from towerbus.welcome import Welcome


class Questions(Service):
    """Lets go of the connections on which the application is asked.

    Args:
        asking: What holds such connections, each with a `close`; others are passed over.
    """

    def __init__(self, *asking: object) -> None:
        self._asking = asking

    def stopService(self) -> Deferred[None]:
        """Close them."""
        super().stopService()
        closing = [Deferred.fromCoroutine(each.close()) for each in self._asking if hasattr(each, "close")]
        return DeferredList(closing).addCallback(_forget)


def embedded(settings: Settings, reactor: Any) -> IService:
    """Everything in one process, on an embedded log: `twistd towerbus`.

    Raises:
        ConfigError: The settings can't be carried out.
    """
    log = _embedded_log(settings, reactor)
    allow_connections()
    run_token = None if settings.auth else OneRunToken()
    judge: IAuthenticator = run_token if run_token is not None else authenticator(settings.auth, reactor)
    clients = hub(settings, reactor, judge, log)
    websocket = Listener(reactor, settings.listen, clients.factory, "--listen")

    def broken() -> Mapping[str, str]:
        trouble = getattr(log, "trouble", None)
        return {"log": trouble} if trouble else {}

    kept = keeping(settings, clients, judge, broken, reactor)
    pages: dict[bytes, IResource] = {
        b"healthz": Alive(),
        b"readyz": Ready(kept.broken, lambda: positions(log)),
        b"debug/sessions": Sessions(clients.factory, judge),
        b"metrics": Metrics(Clients(clients), Tail(log), Running(kept)),
    }
    posts = site(log, judge, reactor, max_payload=settings.max_payload, children=pages)
    http = Listener(reactor, settings.http, posts, "--http")
    kept.watch(websocket, http)
    welcome = Welcome(websocket, http, settings.path[0], run_token.token if run_token is not None else "")
    own = (log,) if isinstance(log, SqliteLog) else ()
    return kept.service(together(*own, *serving(clients, judge), http), websocket, welcome)


def _embedded_log(settings: Settings, reactor: Any) -> MemoryLog | SqliteLog:
    kind, _, path = settings.bus.partition(":")
    if settings.bus == "memory:":
        return MemoryLog(
            time.monotonic,
            max_bytes=settings.log_max_bytes or MEMORY_BYTES,
            max_age=settings.log_max_age or MEMORY_AGE,
        )
    if kind == "sqlite" and path:
        return SqliteLog(
            path,
            reactor,
            max_bytes=settings.log_max_bytes or SQLITE_BYTES,
            max_age=settings.log_max_age or SQLITE_AGE,
            tail_bytes=settings.tail_bytes,
        )
    if kind in {"amqp", "amqps"}:
        raise ConfigError(
            f"--bus: got a URL of {kind}:, wanted memory: or sqlite:PATH: twistd towerbus is all in one process; "
            "on RabbitMQ run twistd towerbus-server and twistd towerbus-worker"
        )
    raise ConfigError(f"--bus: got {shown(settings.bus)}, wanted memory: or sqlite:PATH")


def serving(clients: Hub, judge: IAuthenticator) -> tuple[IService, ...]:
    """What has to run for the clients, but for the listeners and the drain."""
    return (*clients.services, Questions(judge, clients.oracle))


def positions(log: ILog) -> dict[str, object]:
    """What the log has in memory: what stands behind the first position up to the second."""
    return {"positions": {"begin": str(log.tail.begin), "end": str(log.tail.end)}}


def together(*services: IService) -> IService:
    """One service of several, which are started in this order."""
    parent = MultiService()
    for service in services:
        service.setServiceParent(parent)
    return parent


def allow_connections() -> None:
    """Raise this process's limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _forget(_: object) -> None:
    """Only the end counts."""
