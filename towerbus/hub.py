"""The hub: what stands between the log and the clients of one process, put together from settings."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from twisted.application.service import IService, Service

from towerbus.access import AccessRules
from towerbus.auth.interface import IAuthenticator
from towerbus.auth.oracle import AccessOracle
from towerbus.catchup.limits import Limits
from towerbus.catchup.room import CatchUp
from towerbus.config import Settings
from towerbus.dialects import tower, v1
from towerbus.dispatcher import Encode, Lane
from towerbus.log.interface import ILog
from towerbus.log.record import Record
from towerbus.wire import eager
from towerbus.wire.deadlines import Deadlines
from towerbus.wire.deflate import Deflater
from towerbus.wire.factory import EventsFactory, Spoken, WireOptions
from towerbus.wire.fanout import FanOut
from towerbus.wire.frames import text_frame
from towerbus.wire.outlet import broadcast

PIECE = 128 * 1024
"""Bytes that a client which catches up is sent at a time, at the most."""


class Hub(NamedTuple):
    """The parts of the hub that others need.

    Attributes:
        factory: Makes a wire for each connection; `stale` and `fresh` speak to all clients.
        fanout: What brings the events.
        catchup: Where clients get what they have missed.
        oracle: What asks the application; None where nothing is asked.
        services: What has to run, before anything listens and until all connections are gone.
        deflater: What compresses events; None where nothing does.
    """

    factory: EventsFactory
    fanout: FanOut
    catchup: CatchUp
    oracle: AccessOracle | None
    services: tuple[IService, ...]
    deflater: Deflater | None = None


class CatchUpService(Service):
    """Ends the catching up when the process stops."""

    def __init__(self, catchup: CatchUp) -> None:
        self._catchup = catchup

    def stopService(self) -> None:
        """Let go of the log."""
        super().stopService()
        self._catchup.close()


def hub(settings: Settings, reactor: Any, judge: IAuthenticator, log: ILog) -> Hub:
    """Put it together, and let it follow the log.

    Args:
        settings: What was configured.
        reactor: The reactor.
        judge: Judges credentials.
        log: Where the events come from.

    Raises:
        ConfigError: The access rules can't be carried out.
    """
    deadlines, expiries = Deadlines(reactor, time.monotonic), Deadlines(reactor, time.monotonic)
    oracle = AccessOracle(settings.ask_url, reactor) if settings.ask_url else None
    rules = AccessRules(settings.access, ask=bool(settings.ask_url))
    deflater = Deflater() if settings.compression else None
    spoken = dialects(rules, deflater)
    lanes = [lane for each in spoken.values() for lane in each.lanes]
    fanout = FanOut(lanes, reactor.callLater, broadcast, lambda: log.tail.end)
    catchup = CatchUp(
        log, fanout.flush, rules.opens, reactor.callLater, time.monotonic, catchup_limits(settings.outbox)
    )
    factory = EventsFactory(
        options=wire_options(settings),
        spoken=spoken,
        authenticator=judge,
        rules=rules,
        oracle=oracle,
        fanout=fanout,
        catchup=catchup,
        deadlines=deadlines,
        expiries=expiries,
        now=time.time,
        reactor=reactor,
    )
    fanout.on_lost = factory.lost
    log.follow(fanout)
    eager.say_which()
    return Hub(factory, fanout, catchup, oracle, (deadlines, expiries, CatchUpService(catchup)), deflater)


def reconsidered(clients: Hub, settings: Settings) -> str:
    """Put the access rules of other settings in force; what they take away nobody hears any more.

    Returns:
        What was done, in words.

    Raises:
        ConfigError: They can't be carried out; those before stay.
    """
    rules = AccessRules(settings.access, ask=clients.oracle is not None)
    clients.fanout.flush()
    if not clients.factory.rules.become(rules):
        return "the access rules, which are the same"
    clients.factory.reconsider()
    return f"{len(settings.access)} access rules" if settings.access is not None else "the default access rules"


def dialects(rules: AccessRules, deflater: Deflater | None = None) -> dict[str, Spoken]:
    """The dialects that are spoken over WebSockets, by their subprotocols; each has a lane of its own.

    Args:
        rules: Who may see what.
        deflater: Compresses events, for those who want that: they have lanes of their own.
    """
    return {
        tower.NAME: Spoken(
            tower.TowerDialect(),
            Lane(_tower_frame),
            None if deflater is None else Lane(_deflated(tower.event, deflater)),
        ),
        v1.NAME: Spoken(
            v1.V1Dialect(),
            Lane(_v1_frame, rules.opens),
            None if deflater is None else Lane(_deflated(v1.event, deflater), rules.opens),
        ),
    }


def _deflated(write: Encode, deflater: Deflater) -> Encode:
    return lambda record, place: deflater.frame(write(record, place))


def catchup_limits(outbox: int) -> Limits:
    """How much of a client's outbox what it has missed may fill: the other half is for what happens meanwhile."""
    return Limits(room=outbox // 2, piece=min(PIECE, outbox // 4))


def wire_options(settings: Settings) -> WireOptions:
    """What the settings say of the wire."""
    return WireOptions(
        paths=settings.path,
        max_frame=settings.max_frame,
        outbox=settings.outbox,
        ping_interval=settings.ping_interval,
        handshake_timeout=settings.handshake_timeout,
        close_timeout=settings.close_timeout,
        origins=settings.origin,
        session_cookies=settings.session_cookie,
    )


def _tower_frame(record: Record, place: int) -> bytes:
    return text_frame(tower.event(record, place))


def _v1_frame(record: Record, place: int) -> bytes:
    return text_frame(v1.event(record, place))
