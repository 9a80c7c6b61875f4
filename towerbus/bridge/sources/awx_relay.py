"""The source `awx-relay`: a web node for an unchanged AWX (22 to 24.6.1), whose `wsrelay` dials it and sends events.

It lets in who knows the secret, asks for groups, announces itself as AWX's own heartbeat does, and asks for the events
of each job as it hears of the job. The relay has no acknowledgement, so what is received stands in memory until it is
confirmed, also over the bridge's lives, and is bounded in bytes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from towerbus import topics
from towerbus.bridge.admission import Admission
from towerbus.bridge.announcing import CHANNEL, Announcer, Node
from towerbus.bridge.awx import Relayed, relayed, subscribe, unsubscribe
from towerbus.bridge.followed import Followed
from towerbus.bridge.interface import IFeed, ISource, Measure, Surroundings
from towerbus.bridge.waiting import Waiting
from towerbus.doctor import findings
from towerbus.doctor.findings import Finding
from towerbus.endpoints import endpoint
from towerbus.errors import ConfigError, TowerbusError
from towerbus.postgres.session import DatabaseTrouble, Session, check_url
from towerbus.wire.relay import RelayFactory, RelayProtocol

BATCH = 500
"""Messages that are forwarded at once."""
FAREWELL = 1.0
"""Seconds for each of the things that are done at the end."""
NOBODY = "no relay of AWX's is connected"
_log = Logger()


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[bridge.source]`.

    Attributes:
        secret: AWX's `BROADCAST_WEBSOCKET_SECRET`.
        listen: Where relays are awaited, as an endpoint: `tcp:8055`, or `ssl:...`.
        path: The path that they dial.
        groups: What they are asked for from the start, as AWX names it: `jobs-status_changed`.
        follow: Whether the events of each job are asked for, too, once its status has been heard of.
        announce_url: AWX's database, where the node announces itself; where it is not given, it does not.
        announce_hostname: The name that it has there: no other web node's, and no task node's.
        announce_ip: The address that relays dial; the hostname, where it is not given.
        announce_channel: What is notified there.
        announce_every: Seconds between announcements.
        renew_every: Seconds after which relays are told again what they are asked for: one that loses a connection to
            its Redis forgets a group, and says nothing of it.
        max_waiting: Bytes that may wait for the bus.
    """

    secret: str
    listen: str = "tcp:8055:interface=127.0.0.1"
    path: str = "/websocket/relay/"
    groups: tuple[str, ...] = (
        "jobs-status_changed",
        "jobs-summary",
        "schedules-changed",
        "inventories-status_changed",
    )
    follow: bool = True
    announce_url: str = ""
    announce_hostname: str = ""
    announce_ip: str = ""
    announce_channel: str = CHANNEL
    announce_every: float = 15.0
    renew_every: float = 30.0
    max_waiting: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError(
                "secret: wanted is AWX's BROADCAST_WEBSOCKET_SECRET; an empty one, AWX's default, would let in anybody"
            )
        if not self.path.startswith("/"):
            raise ValueError(f"path: got {self.path!r}, wanted a path that begins with /")
        for group in self.groups:
            try:
                topics.from_name(group)
            except topics.TopicError as error:
                raise ValueError(f"groups: got {group!r}, wanted names such as jobs-status_changed ({error})") from None
        if bool(self.announce_url) != bool(self.announce_hostname):
            raise ValueError("announce_url and announce_hostname: wanted are both, or neither")
        if min(self.announce_every, self.renew_every, self.max_waiting) < 1:
            raise ValueError("announce_every, renew_every and max_waiting: wanted are numbers of at least 1")


def make(options: Options, surroundings: Surroundings) -> RelaySource:
    """Make the source.

    Raises:
        ConfigError: `listen` is no endpoint, the database's URL is none, or psycopg is missing.
    """
    if options.announce_url:
        check_url(options.announce_url)
    return RelaySource(options, surroundings)


async def look(options: Options, surroundings: Surroundings) -> Sequence[Finding]:
    """See for the doctor whether the node can announce itself."""
    if not options.announce_url:
        return [findings.note("source", "it waits for relays, and announces itself to none")]
    check_url(options.announce_url)
    session = Session(surroundings.reactor, options.announce_url, "towerbus doctor")
    try:
        await session.connect()
    except DatabaseTrouble as trouble:
        return [findings.error("source", f"AWX's database: {trouble}", "mend announce_url, or the database")]
    finally:
        await session.close()
    return [findings.ok("source", "AWX's database answers; relays hear of the node there")]


@implementer(ISource)
class RelaySource:
    """One web node.

    Args:
        options: How it is.
        surroundings: What the bridge is made with.
        now: Tells the time, in seconds since the epoch of Unix.

    Raises:
        ConfigError: `listen` is no endpoint.
    """

    def __init__(self, options: Options, surroundings: Surroundings, now: Any = time.time) -> None:
        self._options = options
        self._name = surroundings.name
        self._origin = f"towerbus.{surroundings.name}"
        self._reactor = surroundings.reactor
        try:
            self._endpoint = endpoint(self._reactor, options.listen)
        except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
            raise ConfigError(
                f"listen: {options.listen!r} is no endpoint ({error}); wanted is tcp:8055 or so"
            ) from error
        self._admission = Admission(self._reactor, options.secret, self._name, now)
        self._factory = RelayFactory(
            self._reactor, options.path, self._admission.refusal, self._opened, self._received, self._closed
        )
        self._waiting = Waiting(options.max_waiting)
        self._followed = Followed()
        self._feed: IFeed | None = None
        self._wake: Deferred[None] | None = None
        self._broken: Failure | None = None
        self._told = ""
        self._announcer: Announcer | None = None
        if options.announce_url:
            node = Node(options.announce_hostname, options.announce_ip, options.announce_channel)
            self._announcer = Announcer(
                self._reactor, options.announce_url, node, options.announce_every, self._name, self._see
            )

    async def run(self, feed: IFeed) -> None:
        """Listen, and forward what comes, until it is cancelled."""
        try:
            port = await self._endpoint.listen(self._factory)
        except CannotListenError as error:
            raise TowerbusError(f"can't listen on {self._options.listen}: {error.socketError}") from error
        _log.info("relays_awaited: bridge {bridge} at {address}", bridge=self._name, address=port.getHost())
        self._feed, self._told, self._broken = feed, "", None
        self._see()
        renewing = LoopingCall(lambda: self._factory.say(self._wish()))
        renewing.clock = self._reactor
        renewing.start(self._options.renew_every, now=False)
        announcing = None
        if self._announcer is not None:
            announcing = Deferred.fromCoroutine(self._announcer.run()).addErrback(self._announcer_failed)
        try:
            while True:
                await self._turn(feed)
        finally:
            self._feed = None
            if renewing.running:
                renewing.stop()
            # First, so that nobody dials again.
            if announcing is not None:
                announcing.cancel()
                await announcing
            await maybeDeferred(port.stopListening)
            with suppress(TimedOut):
                await self._factory.end().addTimeout(FAREWELL, self._reactor)
            await self._forward_rest(feed)

    def measures(self) -> Sequence[Measure]:
        """Relays, what waits for the bus, what was dropped and refused, and how many jobs are followed."""
        return (
            Measure("awx_relays", "relays of AWX's that are connected", len(self._factory.relays)),
            Measure("awx_waiting_bytes", "bytes from AWX that wait for the bus", self._waiting.size),
            Measure("awx_dropped", "messages from AWX that had no room to wait", self._waiting.dropped),
            Measure("awx_refused", "handshakes that were refused for their secret", self._admission.refused),
            Measure("awx_followed", "jobs whose events are asked for", len(self._followed)),
        )

    # Relays

    def _opened(self, relay: RelayProtocol) -> None:
        _log.info("relay_connected: {peer}", peer=relay.peer, bridge=self._name)
        relay.say(self._wish())
        if self._feed is not None:
            self._feed.established()
            self._told = ""
        self._see()

    def _wish(self) -> bytes:
        return subscribe([*self._options.groups, *self._followed], self._origin)

    def _closed(self, relay: RelayProtocol, reason: str) -> None:
        _log.info("relay_lost: {peer}: {reason}", peer=relay.peer, reason=reason, bridge=self._name)
        self._see()

    def _received(self, _: RelayProtocol, text: bytes) -> None:
        given = relayed(text)
        if given.group and given.group not in self._options.groups and given.group not in self._followed:
            # AWX's relay sends its own metrics unasked, and for a moment what is no longer wanted.
            return
        if given.job and self._options.follow:
            self._follow(given)
        if self._waiting.add(given.message):
            self._rouse()
        else:
            self._see()

    def _follow(self, given: Relayed) -> None:
        joined, left = self._followed.heard(given.job, given.finished, self._reactor.seconds())
        if joined:
            self._factory.say(subscribe(joined, self._origin))
        if left:
            self._factory.say(unsubscribe(left, self._origin))

    # The bus

    async def _turn(self, feed: IFeed) -> None:
        """Forward what waits; where nothing does, wait for it."""
        if self._broken is not None:
            self._broken.raiseException()
        if not self._waiting:
            if self._waiting.full:
                self._waiting.full = False
                self._see()
            self._wake = Deferred()
            await self._wake
            return
        await self._forward(feed)

    async def _forward(self, feed: IFeed) -> None:
        batch = self._waiting.first(BATCH)
        await feed.forward(batch)
        # Until now they stood in the line: they would have been forwarded in the next life, with the same ids.
        self._waiting.let_go(len(batch))

    async def _forward_rest(self, feed: IFeed) -> None:
        """At the end: nobody will send it again."""
        with suppress(TimedOut, CancelledError):
            while self._waiting:
                await Deferred.fromCoroutine(self._forward(feed)).addTimeout(FAREWELL, self._reactor)
        if self._waiting:
            _log.warn("relay_kept: {count} messages wait for the bus", count=len(self._waiting), bridge=self._name)

    def _rouse(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            self._reactor.callLater(0, lambda: None if wake.called else wake.callback(None))

    def _see(self) -> None:
        """Tell what is wrong, where that has changed."""
        if self._feed is None:
            return
        troubles = [] if self._factory.relays else [NOBODY]
        if self._announcer is not None and self._announcer.trouble:
            troubles.append(self._announcer.trouble)
        if self._waiting.full:
            troubles.append(f"over {self._options.max_waiting} bytes wait for the bus: AWX's messages are dropped")
        text = "; ".join(troubles)
        if text != self._told:
            self._told = text
            self._feed.trouble(text)

    def _announcer_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._broken = failure
            self._rouse()
