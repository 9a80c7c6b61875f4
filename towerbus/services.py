"""The wiring: makes services of settings. No rules and no I/O of its own."""

from __future__ import annotations

import resource
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.web.server import Site

from towerbus.access import AccessRules
from towerbus.auth.chain import authenticator
from towerbus.auth.interface import IAuthenticator
from towerbus.auth.oracle import AccessOracle
from towerbus.auth.tokens import OneRunToken
from towerbus.config import Settings
from towerbus.dialects import tower
from towerbus.dispatcher import Lane
from towerbus.errors import ConfigError
from towerbus.intake.http import site
from towerbus.log.memory import MemoryLog
from towerbus.log.record import Record
from towerbus.wire.deadlines import Deadlines
from towerbus.wire.fanout import FanOut
from towerbus.wire.frames import text_frame
from towerbus.wire.outlet import Outlet, broadcast
from towerbus.wire.websocket import EventsFactory, WireOptions

_log = Logger()

BACKLOG = 4096
"""Connections that may wait to be accepted: Twisted's own 50 is too few for a crowd that comes back."""


class Listener(Service):
    """Listens on an endpoint while it runs.

    A failed bind ends the process with a message and exit code 1: one that serves nothing would look healthy.
    """

    def __init__(self, reactor: Any, description: str, factory: Any, option: str) -> None:
        if description.startswith("tcp:") and "backlog=" not in description:
            description += f":backlog={BACKLOG}"
        try:
            self._endpoint = serverFromString(reactor, description)
        except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
            raise ConfigError(
                f"{option}: {description!r} is no endpoint ({error}); wanted is tcp:8051:interface=127.0.0.1 or so"
            ) from error
        self._description = description
        self._factory = factory
        self._option = option
        self._port: IListeningPort | None = None
        factory.noisy = False

    def startService(self) -> None:
        """Begin to listen."""
        super().startService()
        outcome: list[object] = []
        self._endpoint.listen(self._factory).addBoth(outcome.append)
        (port,) = outcome
        if not IListeningPort.providedBy(port):
            reason = getattr(port, "value", port)
            cause = reason.socketError if isinstance(reason, CannotListenError) else reason
            raise SystemExit(
                f"towerbus: can't listen on {self._description}: {cause}; choose another with {self._option}"
            )
        self._port = port

    @property
    def address(self) -> IAddress:
        """Where it listens."""
        assert self._port is not None  # noqa: S101 - asked of a running service only
        return self._port.getHost()

    def stopService(self) -> Deferred[None]:
        """Stop listening; connections stay."""
        super().stopService()
        return maybeDeferred(self._port.stopListening if self._port is not None else _nothing).addCallback(_forget)


class Farewells(Service):
    """Ends the connections when the process stops, with 1012, in bounded time.

    Args:
        clock: Calls later.
        factory: Whose connections they are.
        patience: Seconds that the clients get to answer.
    """

    def __init__(self, clock: Any, factory: EventsFactory, patience: float = 1.0) -> None:
        self._clock = clock
        self._factory = factory
        self._patience = patience

    def stopService(self) -> Deferred[None] | None:
        """Say goodbye to all, and wait until they are gone, or for the patience to end."""
        super().stopService()
        for wire in tuple(self._factory.wires):
            wire.close(1012, "restarting")
        if not self._factory.wires:
            return None
        done: Deferred[None] = Deferred()
        self._wait(done, self._clock.seconds() + self._patience)
        return done

    def _wait(self, done: Deferred[None], until: float) -> None:
        if not self._factory.wires:
            done.callback(None)
        elif self._clock.seconds() >= until:
            for wire in tuple(self._factory.wires):
                wire.transport.abortConnection()
            done.callback(None)
        else:
            self._clock.callLater(0.01, self._wait, done, until)


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


class Welcome(Service):
    """Tells a newcomer, on standard output, what to type next.

    Args:
        settings: What was configured.
        websocket: Where the WebSocket is.
        http: Where producers post.
        token: The token for everything, made for this run; empty where there is none.
    """

    def __init__(self, settings: Settings, websocket: Listener, http: Listener, token: str) -> None:
        self._path = settings.path[0]
        self._websocket = websocket
        self._http = http
        self._token = token

    def startService(self) -> None:
        """Print, past the log: the lines are to be pasted, and the token is no log's business."""
        super().startService()
        url = f"ws://{_host(self._websocket.address)}{self._path}"
        token = self._token or "TOKEN"
        command = _command()
        watch = f"{command} watch --url {shlex.quote(url)} --token {token} jobs:status_changed"
        emit = (
            f"{command} emit --url http://{_host(self._http.address)} --token {token} jobs status_changed "
            + shlex.quote('{"unified_job_id": 1, "status": "running"}')
        )
        lines = [f"{url}?token={token}", watch, emit]
        print(*lines, sep="\n", file=sys.__stdout__, flush=True)  # noqa: T201 - this is what it is for


def embedded(settings: Settings, reactor: Any) -> IService:
    """Everything in one process, on an embedded log: `twistd towerbus`.

    Raises:
        ConfigError: The settings can't be carried out.
    """
    if settings.bus != "memory:":
        raise ConfigError(f"--bus: got {settings.bus!r}, wanted memory:")
    allow_connections()
    run_token = None if settings.auth else OneRunToken()
    judge: IAuthenticator = run_token if run_token is not None else authenticator(settings.auth, reactor)
    log = MemoryLog(time.monotonic, max_bytes=settings.log_max_bytes, max_age=settings.log_max_age)
    deadlines = Deadlines(reactor, time.monotonic)
    expiries = Deadlines(reactor, time.monotonic)
    factory = _websocket(settings, reactor, judge, deadlines, expiries)
    log.follow(factory.fanout)
    posts: Site = site(log, judge, reactor, max_payload=settings.max_payload)
    websocket = Listener(reactor, settings.listen, factory, "--listen")
    http = Listener(reactor, settings.http, posts, "--http")
    welcome = Welcome(settings, websocket, http, run_token.token if run_token is not None else "")
    services = MultiService()
    questions = Questions(judge, factory.oracle)
    for service in (deadlines, expiries, questions, Farewells(reactor, factory), websocket, http, welcome):
        service.setServiceParent(services)
    return services


def _websocket(
    settings: Settings, reactor: Any, judge: IAuthenticator, deadlines: Deadlines, expiries: Deadlines
) -> EventsFactory:
    lane: Lane[Outlet] = Lane(_tower_frame)
    return EventsFactory(
        options=WireOptions(
            paths=settings.path,
            max_frame=settings.max_frame,
            outbox=settings.outbox,
            ping_interval=settings.ping_interval,
            handshake_timeout=settings.handshake_timeout,
            close_timeout=settings.close_timeout,
            origins=settings.origin,
            session_cookies=settings.session_cookie,
        ),
        authenticator=judge,
        rules=AccessRules(settings.access, ask=bool(settings.ask_url)),
        oracle=AccessOracle(settings.ask_url, reactor) if settings.ask_url else None,
        fanout=FanOut([lane], reactor.callLater, broadcast),
        lane=lane,
        deadlines=deadlines,
        expiries=expiries,
        now=time.time,
        reactor=reactor,
    )


def allow_connections() -> None:
    """Raise this process's limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tower_frame(record: Record, place: int) -> bytes:
    return text_frame(tower.event(record, place))


def _command() -> str:
    """How the `towerbus` command is called from here: by its path, where the shell would not find it."""
    beside = Path(sys.executable).with_name("towerbus")
    if shutil.which("towerbus") or not beside.exists():
        return "towerbus"
    return shlex.quote(str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside))


def _host(address: Any) -> str:
    """An address as it stands in a URL."""
    host = getattr(address, "host", "127.0.0.1")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - told apart, not bound
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{getattr(address, 'port', 0)}"


def _nothing() -> None:
    """There was nothing to stop."""


def _forget(_: object) -> None:
    """Only the end counts."""
