"""The wiring of `twistd towerbus-bridge`: one supervisor for each bridge, and its ways to the bus."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import IResource

from towerbus import web
from towerbus.access import Patterns
from towerbus.amqp.burying import DeadLetters, Letter
from towerbus.amqp.intake import AmqpIntake
from towerbus.amqp.log import AmqpLog
from towerbus.amqp.url import Broker, of_bus
from towerbus.bridge.configuration import BridgeOptions
from towerbus.bridge.feed import Feed
from towerbus.bridge.interface import ISink, ISource, Measure, Surroundings
from towerbus.bridge.kept import KeptPosition
from towerbus.bridge.mapping import Mapping as MessageMapping
from towerbus.bridge.message import Message
from towerbus.bridge.metrics import Bridges, BusState, Shown
from towerbus.bridge.outflow import Outflow
from towerbus.bridge.standing import Standing, Title
from towerbus.bridge.supervisor import Supervisor
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

BRIDGE_HEADER = "towerbus-bridge"
"""The header of a dead letter that says through which bridge it came."""


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
        self._lock = Lock(directory / "bridge")
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


class DeadQueue:
    """The bus's dead queue, as bridges use it.

    Args:
        letters: Keeps letters there.
    """

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    def bury(self, message: Message, reason: str, bridge: str) -> Deferred[None]:
        """Put a message there."""
        return self._letters.bury(
            Letter(
                message.body,
                reason,
                {**message.headers, BRIDGE_HEADER: bridge},
                message_id=message.id,
                content_type=message.content_type,
                routing_key=message.routing_key,
                place=message.place,
            )
        )


class Ways:
    """The ways between the bridges and the bus: made as they are needed, and asked how they are.

    Args:
        broker: The bus's.
        reactor: Connects, and tells the time.
        hopeless: Called with the text when the broker refuses us, and never let us in before.
    """

    def __init__(self, broker: Broker, reactor: Any, hopeless: Callable[[str], None]) -> None:
        self._broker = broker
        self._reactor = reactor
        self._hopeless = hopeless
        self.letters = DeadLetters(broker, reactor)
        self.log: AmqpLog | None = None
        self.intakes: dict[str, AmqpIntake] = {}

    def intake(self, name: str) -> AmqpIntake:
        """A way into the bus for one bridge alone: none waits for another's."""

        def refused(text: str) -> None:
            if not made.bus.reconnects:
                self._hopeless(text)

        made = self.intakes[name] = AmqpIntake(
            self._broker, self._reactor, patient=True, name=f"bridge {name}", refused=refused
        )
        return made

    def reading(self) -> AmqpLog:
        """The log, one for all sinks."""
        if self.log is None:
            self.log = AmqpLog(self._broker, self._reactor, refused=self._reading_refused)
        return self.log

    def _reading_refused(self, text: str) -> None:
        if self.log is not None and not self.log.known:
            self._hopeless(text)

    def services(self) -> Sequence[IService]:
        """All of them, to be run."""
        return (self.letters, *([] if self.log is None else [self.log]), *self.intakes.values())

    def states(self) -> Sequence[BusState]:
        """How they are."""
        found = [BusState("dead letters", self.letters.trouble, self.letters.reconnects)]
        if self.log is not None:
            found.append(BusState("log", self.log.trouble, self.log.bus.reconnects))
        found += [BusState(f"bridge {name}", each.trouble, each.bus.reconnects) for name, each in self.intakes.items()]
        return found

    def broken(self) -> dict[str, str]:
        """What is wrong with the bus: every way has the same broker, so one reason for each kind is enough."""
        found = {"log": self.log.trouble} if self.log is not None and self.log.trouble else {}
        troubles = [each.trouble for each in self.intakes.values()] + [self.letters.trouble or self.letters.refusal]
        return found | next(({"bus": text} for text in troubles if text), {})


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
