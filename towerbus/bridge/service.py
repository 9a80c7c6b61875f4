"""The wiring of `twistd towerbus-bridge`: one supervisor for each bridge."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import IResource

from towerbus import web
from towerbus.access import Patterns
from towerbus.amqp.intake import AmqpIntake
from towerbus.amqp.url import of_bus
from towerbus.bridge.configuration import BridgeOptions
from towerbus.bridge.feed import Feed
from towerbus.bridge.interface import ISink, ISource, Measure, Surroundings
from towerbus.bridge.kept import KeptPosition
from towerbus.bridge.mapping import Mapping as MessageMapping
from towerbus.bridge.metrics import Bridges, Shown
from towerbus.bridge.outflow import Outflow
from towerbus.bridge.standing import Standing, Title
from towerbus.bridge.supervisor import Supervisor
from towerbus.bridge.ways import DeadQueue, Ways
from towerbus.config import Settings
from towerbus.errors import ConfigError
from towerbus.giving_up import give_up
from towerbus.listening import Listener
from towerbus.log.sqlite_file import Lock, LogFileUnusable
from towerbus.ops.health import Alive, Ready
from towerbus.ops.metrics import Metrics
from towerbus.ops.notify import Condition, Notify, Supervised
from towerbus.options import BRIDGE

_log = Logger()


class Made(NamedTuple):
    """One bridge, made.

    Attributes:
        options: Its configuration.
        part: The source or the sink.
        supervisor: Runs it.
        intake: A source's own way to the bus.
        outflow: A sink's.
    """

    options: BridgeOptions
    part: Any
    supervisor: Supervisor
    intake: AmqpIntake | None
    outflow: Outflow | None

    def measures(self) -> Sequence[Measure]:
        """Its own numbers."""
        found: Sequence[Measure] = self.part.measures()
        return found if self.outflow is None else [*found, *self.outflow.measures()]


class StateDirectory(Service):
    """Keeps other processes from the same directory, from its start on and until this process ends.

    Args:
        directory: The directory; it is made.
        names: The bridges' names.

    Raises:
        ConfigError: It can't be made.
    """

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--bridge-state: {directory}: can't be made: {error.strerror}") from error
        self._lock = Lock(directory / "bridge", what="directory")
        self._directory = directory
        self._names = frozenset(names)

    def privilegedStartService(self) -> None:
        """Take it before anything starts.

        Raises:
            SystemExit: Another process has it.
        """
        super().privilegedStartService()
        try:
            self._lock.take()
        except LogFileUnusable as error:
            raise SystemExit(f"{BRIDGE}: --bridge-state: {self._directory}: {error}") from error
        for spool in sorted(self._directory.glob("*/spool.db")):
            if spool.parent.name not in self._names:
                _log.warn(
                    "spool_orphaned: {path} is of a bridge {name!r} that is not there: what waits in it stays",
                    path=str(spool),
                    name=spool.parent.name,
                )


class LivesEndFirst(MultiService):
    """Everything, of which the lives end first: a source may still have to forward what it can't get again.

    Args:
        lives: The supervisors.
    """

    def __init__(self, lives: MultiService) -> None:
        super().__init__()
        self._lives = lives

    def stopService(self) -> Deferred[Any]:
        """End the lives, in bounded time, and then the ways to the bus."""
        return maybeDeferred(self._lives.stopService).addBoth(lambda _: super(LivesEndFirst, self).stopService())


def bridges(settings: Settings, reactor: Any, configured: Sequence[BridgeOptions]) -> IService:
    """Make it.

    Args:
        settings: The command's options.
        reactor: Runs everything.
        configured: The bridges.

    Raises:
        ConfigError: The settings can't be carried out.
    """
    broker = of_bus(settings.bus)
    ways = Ways(broker, reactor, lambda text: give_up(reactor, f"{BRIDGE}: {text}"))
    state = Path(settings.bridge_state) if settings.bridge_state else None
    made = make(configured, settings, reactor, state, ways)
    pages: dict[bytes, IResource] = {
        b"healthz": Alive(),
        b"readyz": Ready(lambda: _broken(made, ways), lambda: {"bridges": _facts(made)}),
        b"metrics": Metrics(Bridges([Shown(each.supervisor.standing, each.measures) for each in made], ways.states)),
    }
    http = Listener(reactor, settings.bridge_http, web.site(pages, reactor), "--bridge-http")
    lives = MultiService()
    for each in made:
        each.supervisor.setServiceParent(lives)
    parent = LivesEndFirst(lives)
    own = [] if state is None else [StateDirectory(state, [each.options.name for each in made])]
    supervised = Supervised(reactor, Notify(os.environ), lambda: _condition(made, ways))
    for service in (*own, http, *ways.services(), lives, supervised):
        service.setServiceParent(parent)
    return parent


def surroundings(options: BridgeOptions, settings: Settings, reactor: Any, state: Path | None) -> Surroundings:
    """What a bridge is made with."""
    directory = None if state is None else state / options.name
    return Surroundings(options.name, reactor, directory, settings.max_payload)


def make(
    configured: Sequence[BridgeOptions], settings: Settings, reactor: Any, state: Path | None, ways: Ways
) -> list[Made]:
    """Make all bridges; nothing starts.

    Raises:
        ConfigError: Some can't be made; the text has one line for each.
    """
    faults: list[str] = []
    made: list[Made] = []
    for options in configured:
        around = surroundings(options, settings, reactor, state)
        try:
            made.append(_made(options, around, ways))
        except ConfigError as error:
            faults.append(f"{options.place}: {options.side}: {error}")
    if faults:
        raise ConfigError("\n".join(faults))
    return made


def _made(options: BridgeOptions, around: Surroundings, ways: Ways) -> Made:
    part = options.module.make(options.options, around)
    standing = Standing(Title(options.name, options.side, options.kind))
    if options.side == "source":
        return _made_source(part, options, standing, around, ways)
    return _made_sink(part, options, standing, around, ways)


def _made_source(source: ISource, options: BridgeOptions, standing: Standing, around: Surroundings, ways: Ways) -> Made:
    intake = ways.intake(options.name)
    mapping = MessageMapping(options.mapping, around.max_payload)
    feed = Feed(standing, mapping, intake, DeadQueue(ways.letters), around.reactor)

    def live() -> Coroutine[Any, Any, None]:
        _make_directory(around)
        return source.run(feed)

    return Made(options, source, Supervisor(standing, live, around.reactor), intake, None)


def _made_sink(sink: ISink, options: BridgeOptions, standing: Standing, around: Surroundings, ways: Ways) -> Made:
    kept = KeptPosition(around.needed_directory("the position of a sink is kept"), around.reactor, options.name)
    topics = Patterns(options.topics)
    outflow = Outflow(standing, ways.reading(), topics, kept, DeadQueue(ways.letters), around.reactor)

    def live() -> Coroutine[Any, Any, None]:
        _make_directory(around)
        outflow.rewind()
        return sink.run(outflow)

    return Made(options, sink, Supervisor(standing, live, around.reactor), None, outflow)


def _make_directory(around: Surroundings) -> None:
    if around.directory is not None:
        around.directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _broken(made: Sequence[Made], ways: Ways) -> Mapping[str, str]:
    found = ways.broken()
    for each in made:
        standing = each.supervisor.standing
        if standing.trouble:
            found[f"bridge {standing.title.name}"] = standing.trouble
    return found


def _condition(made: Sequence[Made], ways: Ways) -> Condition:
    """For the service manager. A system that is away, the bus too, is nothing that a restart of this process mends."""
    broken = _broken(made, ways)
    first = "".join(f"; {name}: {reason}" for name, reason in list(broken.items())[:1])
    count = "1 bridge" if len(made) == 1 else f"{len(made)} bridges"
    return Condition("", f"carrying {count}{first}")


def _facts(made: Sequence[Made]) -> Mapping[str, object]:
    return {
        each.options.name: {
            each.options.side: each.options.kind,
            "state": each.supervisor.standing.state.value,
            "events": each.supervisor.standing.counts.events,
        }
        for each in made
    }
