"""The doctor's look at the broker through AMQP: login, version, objects, permissions, the intake, the log's reach.

It changes nothing: objects are declared anew only where they are there, which the broker answers without a change, and
the one message that it publishes is a knock, which holds no event.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from pika import BasicProperties
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut

from towerbus.amqp.channel import Channel, Delivery
from towerbus.amqp.connection import Connection, connect
from towerbus.amqp.errors import ACCESS_REFUSED, NOT_FOUND, ChannelClosed, Unpublished, trouble
from towerbus.amqp.names import OFFSET
from towerbus.amqp.stream import offset_of
from towerbus.amqp.topology import DEAD, INTAKE, LOG, Limits, Names, mismatch
from towerbus.amqp.url import Broker
from towerbus.doctor import findings
from towerbus.doctor.findings import DOCTOR, Finding
from towerbus.errors import TowerbusError
from towerbus.intake.messages import KNOCK
from towerbus.log.packing import unpack

SECONDS = 5.0
"""Seconds that one look may take."""
_GRANT = "rabbitmqctl set_permissions -p VHOST USER '^PREFIX' '^PREFIX' '^PREFIX'"
_REFUSED = (
    "mend the bus's URL, or the broker: rabbitmqctl list_users, rabbitmqctl list_vhosts, "
    "rabbitmqctl list_permissions -p VHOST"
)
_START = "start a worker, which makes it: twistd towerbus-worker"


async def look(broker: Broker, limits: Limits, window: float, reactor: Any) -> list[Finding]:
    """Look at everything that AMQP shows.

    Args:
        broker: Where.
        limits: What the objects should hold.
        window: Seconds for which coming back without loss was promised.
        reactor: Connects, and tells the time.
    """
    try:
        connection = await connect(broker, DOCTOR, reactor)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        found = trouble(error, broker)
        mend = _REFUSED if found.refused else "see that the broker runs and that its port can be reached from here"
        return [findings.error("broker", found.text, mend)]
    examination = _Examination(connection, Names(broker.prefix), limits, window, reactor)
    try:
        return [findings.ok("broker", f"{broker} lets us in"), *await examination.run()]
    finally:
        await connection.end()


class _Examination:
    """One look, on one connection."""

    def __init__(self, connection: Connection, names: Names, limits: Limits, window: float, reactor: Any) -> None:
        self._connection = connection
        self._names = names
        self._limits = limits
        self._window = window
        self._reactor = reactor

    async def run(self) -> list[Finding]:
        """Look at one thing after the other; a look that fails is a finding of its own."""
        told = self._connection.server_properties
        found = [findings.version(_text(told.get("product")), _text(told.get("version")))]
        for check, part in (
            ("objects", self._objects),
            ("intake", self._intake),
            ("log", self._log),
            # Last: a broker with an alarm reads no more from a connection that published.
            ("publishing", self._publishing),
        ):
            try:
                found += await Deferred.fromCoroutine(part()).addTimeout(SECONDS, self._reactor)
            except TimedOut:
                found.append(findings.error(check, f"no answer within {SECONDS:g} s", "look at the broker's own log"))
            except TowerbusError as error:
                found.append(findings.error(check, str(error), "look at the broker's own log"))
        return found

    async def _objects(self) -> list[Finding]:
        names, limits = self._names, self._limits
        alternate = {"alternate-exchange": names.unrouted}
        wanted: list[tuple[str, Callable[[Channel, bool], Awaitable[object]]]] = [
            (
                names.exchange,
                lambda c, p: c.declare_exchange(names.exchange, "topic", {} if p else alternate, passive=p),
            ),
            (names.direct, lambda c, p: c.declare_exchange(names.direct, "direct", passive=p)),
            (names.unrouted, lambda c, p: c.declare_exchange(names.unrouted, "fanout", passive=p)),
            (names.intake, lambda c, p: c.declare_queue(names.intake, {} if p else limits.intake, passive=p)),
            (names.log, lambda c, p: c.declare_queue(names.log, {} if p else limits.log, passive=p)),
            (names.dead, lambda c, p: c.declare_queue(names.dead, {} if p else limits.dead, passive=p)),
        ]
        found: list[Finding] = []
        missing: list[str] = []
        refused: list[str] = []
        for name, declare in wanted:
            error = await self._object(declare)
            if error is not None and error.code == NOT_FOUND and "home node" not in error.text:
                missing.append(name)
            elif error is not None and error.code == ACCESS_REFUSED:
                refused.append(name)
            elif error is not None:
                found.append(_not_as_it_should_be(name, error))
        if refused:
            text = f"we may not configure {', '.join(refused)}: not compared with the configuration"
            found.append(findings.warning("permissions", text, f"a worker needs it, a server does not: {_GRANT}"))
        if missing:
            found.append(findings.error("objects", f"missing: {', '.join(missing)}", _START))
        return found or [findings.ok("objects", f"all six of {names.prefix} are there and as configured")]

    async def _object(self, declare: Callable[[Channel, bool], Awaitable[object]]) -> ChannelClosed | None:
        """Why an object is not as it should be, in the broker's words."""
        for passive in (True, False):
            channel = await self._connection.channel(vital=False)
            try:
                await declare(channel, passive)
            except ChannelClosed as error:
                return error
            channel.close()
        return None

    async def _intake(self) -> list[Finding]:
        channel = await self._connection.channel(vital=False)
        try:
            waiting = await channel.declare_queue(self._names.intake, passive=True)
            dead = await channel.declare_queue(self._names.dead, passive=True)
        except ChannelClosed:
            return []  # said by the objects
        channel.close()
        found = [findings.intake(waiting.messages, waiting.consumers)]
        if dead.messages:
            text = f"{dead.messages} messages could not be taken; each has the reason in its header"
            found.append(findings.warning(DEAD, text, f"look at {self._names.dead}, mend their producers, purge it"))
        return found

    async def _publishing(self) -> list[Finding]:
        channel = await self._connection.channel(vital=False)
        await channel.confirm()
        found = []
        try:
            # A broker with an alarm takes one message, and only then reads no more.
            for _ in range(2):
                properties = BasicProperties(content_type=KNOCK, message_id=uuid.uuid4().hex)
                knock = channel.publish(self._names.direct, INTAKE, b"", properties)
                await knock.addTimeout(SECONDS / 3, self._reactor)
        except TimedOut:
            why = "it is blocked by an alarm (memory, disk)" if self._connection.blocked else "the queue hangs"
            found.append(
                findings.error("publishing", f"the intake does not confirm: {why}", "look at the broker's own log")
            )
        except Unpublished as error:
            mend = "raise --intake-max-bytes, or see why the worker is slow; where it was returned, start a worker"
            found.append(findings.error("publishing", f"the intake refuses: {error}", mend))
        except ChannelClosed as error:
            if error.code != NOT_FOUND:
                found.append(_not_as_it_should_be(self._names.direct, error))
        else:
            found.append(findings.ok("publishing", "the intake confirms"))
            channel.close()
        return found

    async def _log(self) -> list[Finding]:
        channel = await self._connection.channel(vital=False)
        try:
            begin, at = await self._first(channel)
        except ChannelClosed as error:
            return [] if error.code == NOT_FOUND else [_not_as_it_should_be(self._names.log, error)]
        if begin is None:
            return [findings.error(LOG, "the log is empty: no worker ever wrote to it", _START)]
        limits = self._limits
        span = None if at is None else max(0.0, time.time() - at)
        return findings.retention(
            window=self._window, max_age=limits.log_max_age, span=span, cut=begin > 0,
            segment_bytes=limits.log_segment_bytes, max_bytes=limits.log_max_bytes,
        )  # fmt: skip

    async def _first(self, channel: Channel) -> tuple[int | None, float | None]:
        """The offset of the log's first record, and the time of its first event; None where there is none."""
        seen: list[int] = []
        at: Deferred[float] = Deferred()

        def take(delivery: Delivery) -> None:
            channel.ack(delivery.tag)
            if at.called:
                return
            try:
                seen.append(offset_of(delivery))
                record = unpack(delivery.body, seen[-1])
            except TowerbusError as error:
                at.errback(error)
            else:
                if record.events:
                    at.callback(record.events[0].time)

        await channel.limit(100)
        await channel.consume(self._names.log, take, arguments={OFFSET: "first"})
        at.addTimeout(SECONDS / 2, self._reactor)
        try:
            time_ = await at
            return seen[0], time_
        except TimedOut:
            return (seen[0] if seen else None), None
        finally:
            channel.close()


def _not_as_it_should_be(name: str, error: ChannelClosed) -> Finding:
    other = mismatch(error)
    if other is not None:
        return findings.error("objects", other.seen, other.mend)
    if error.code == NOT_FOUND and "home node" in error.text:
        return findings.error("objects", f"{name}: {error.text}", "start the node that holds it")
    if error.code == ACCESS_REFUSED:
        return findings.error(
            "permissions", f"{name}: {error.text}", "rabbitmqctl set_permissions: PREFIX.* for all three"
        )
    return findings.error("objects", f"{name}: {error}", "look at the broker's own log")


def _text(told: object) -> str:
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told or "?")
