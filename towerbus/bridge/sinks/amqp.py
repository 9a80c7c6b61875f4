"""The sink `amqp`: events to an exchange on any broker, in the order of the log, each confirmed.

What is published carries the event's id as `message_id`, and its address and position as headers. A bridge that dies
between a confirmation and its keeping publishes some events again, with the same ids. An event that is larger than the
broker takes goes to the dead queue: it would hold up all that comes behind it for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface import implementer

from towerbus.amqp.channel import Channel
from towerbus.amqp.connection import Connection
from towerbus.amqp.errors import NOT_FOUND, PRECONDITION_FAILED, ChannelClosed, Unpublished
from towerbus.amqp.foreign import hold, publish
from towerbus.amqp.url import Broker
from towerbus.bridge.broker import broker, check, looked_at
from towerbus.bridge.interface import IOutflow, ISink, Measure, Outgoing, Surroundings
from towerbus.bridge.message import Message
from towerbus.bridge.template import Template
from towerbus.doctor import findings
from towerbus.doctor.findings import Finding
from towerbus.errors import TowerbusError

_PLACES = "wanted are the places {routing_key}, {group}, {type}, {id} and {payload.KEY}"
BATCH, BATCH_BYTES = 256, 1024 * 1024
"""Events after which the position is kept, at the most."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before an event that the broker did not take is published again."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[bridge.sink]` of this kind.

    Attributes:
        url: The broker, `amqp://USER:PASSWORD@HOST/VHOST`, as the bus's `--bus`.
        exchange: The exchange; it must be there.
        routing_key: A template for the routing key, with the places `{routing_key}` (the event's `group.type`),
            `{group}`, `{type}`, `{id}` and `{payload.KEY}`.
        in_flight: Events that may be unconfirmed at once. With more than one it is faster by far; but where the broker
            refuses one in the middle (a full queue), those behind it are there before it.
        mandatory: Whether an event that no queue takes is tried again until one does; without it, it is let go.
    """

    url: str
    exchange: str
    routing_key: str = "{routing_key}"
    in_flight: int = 1
    mandatory: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.in_flight <= BATCH:
            raise ValueError(f"in_flight: got {self.in_flight}, wanted a number from 1 to {BATCH}")
        try:
            key = Template(self.routing_key)
        except ValueError as error:
            raise ValueError(f"routing_key: got {self.routing_key!r}: {error}") from None
        if key.asks("headers"):
            raise ValueError(f"routing_key: got {self.routing_key!r}: an event has no headers; {_PLACES}")
        check(self.url)


def make(options: Options, surroundings: Surroundings) -> AmqpSink:
    """Make it.

    Raises:
        ConfigError: The URL is not right.
    """
    return AmqpSink(options, broker(options.url), surroundings)


@implementer(ISink)
class AmqpSink:
    """Publishes to the exchange.

    Args:
        options: The configuration.
        broker: Where.
        surroundings: The bridge's.
    """

    def __init__(self, options: Options, broker: Broker, surroundings: Surroundings) -> None:
        self._options = options
        self._broker = broker
        self._around = surroundings
        self._key = Template(options.routing_key)
        self._rest: Sequence[Outgoing] = ()
        self._unkept: Outgoing | None = None
        self._singly = 0
        self._refusal = ""

    async def run(self, outflow: IOutflow) -> None:
        """Publish until it is cancelled; a connection that is lost is followed by the next."""
        self._rest, self._unkept = (), None
        self._singly, self._refusal = 0, ""

        async def session(connection: Connection, established: Callable[[], None]) -> None:
            channel = await self._begin(connection)
            established()
            while True:
                await self._settle(outflow)
                if not self._rest:
                    self._rest = await outflow.take(BATCH, BATCH_BYTES)
                await self._publish_all(channel, outflow)

        await hold(self._broker, f"bridge {self._around.name} sink", self._around.reactor, session, outflow)

    def measures(self) -> Sequence[Measure]:
        """What waits here."""
        return [Measure("waiting_events", "Events that wait for the foreign system", len(self._rest))]

    async def _begin(self, connection: Connection) -> Channel:
        exchange = self._options.exchange
        if exchange:
            await see_exchange(connection, exchange)
        channel = await connection.channel()
        await channel.confirm()
        return channel

    async def _publish_all(self, channel: Channel, outflow: IOutflow) -> None:
        """Publish what is at hand; what was confirmed before a failure is not published again."""
        pause = FIRST_PAUSE
        while self._rest:
            try:
                await self._publish_some(channel, outflow)
            except Unpublished as error:
                outflow.trouble(f"exchange {self._options.exchange!r}: {error}")
                await self._keep(outflow)
                await deferLater(self._around.reactor, pause, lambda: None)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if pause != FIRST_PAUSE:
                    outflow.trouble("")
                    pause = FIRST_PAUSE
        await self._keep(outflow)

    async def _publish_some(self, channel: Channel, outflow: IOutflow) -> None:
        """Publish as many as may be in flight, and wait for them in order."""
        flight = self._rest[: 1 if self._singly else self._options.in_flight]
        answers = [(each, self._published(channel, outflow, each)) for each in flight]
        for number, (each, answer) in enumerate(answers):
            try:
                await answer
            except BaseException as error:
                for _, other in answers[number + 1 :]:
                    other.addErrback(_told_already)
                if isinstance(error, ChannelClosed):
                    self._blame(error, len(answers) - number)
                raise
            self._unkept, self._rest = each, self._rest[1:]
            self._singly = max(0, self._singly - 1)

    def _blame(self, error: ChannelClosed, suspects: int) -> None:
        """See whether the broker has closed the channel for an event, and for which: it does not say.

        Args:
            error: Its words.
            suspects: How many events were not confirmed; they are the next ones.

        Raises:
            TowerbusError: The exchange is not there any more.
        """
        if error.code == NOT_FOUND:
            raise TowerbusError(_missing(self._options.exchange)) from error
        if error.code != PRECONDITION_FAILED or "message size" not in error.text:
            return
        if suspects == 1:
            self._refusal = f"exchange {self._options.exchange!r} on {self._broker}: {error}"
        else:
            self._singly = suspects

    def _published(self, channel: Channel, outflow: IOutflow, each: Outgoing) -> Deferred[None]:
        event, options = each.event, self._options
        key = self._routing_key(each)
        if key is None:
            return outflow.bury(each, f"the template {options.routing_key!r} finds no routing key in it")
        group, type_ = event.topic
        headers = {"towerbus-group": group, "towerbus-type": type_, "towerbus-position": str(each.position)}
        return publish(
            channel,
            options.exchange,
            key,
            event.payload,
            message_id=event.id,
            time=event.time,
            headers=headers,
            mandatory=options.mandatory,
        )

    def _routing_key(self, each: Outgoing) -> str | None:
        event = each.event
        group, type_ = event.topic
        message = Message(event.payload, id=event.id, group=group, type=type_, routing_key=f"{group}.{type_}")
        payload: Any = msgspec.json.decode(event.payload) if self._key.asks("payload") else None
        try:
            key = self._key.fill(message, payload)
        except TowerbusError:
            return None
        return key if len(key.encode()) <= 255 else None  # noqa: PLR2004 - AMQP's own limit

    async def _settle(self, outflow: IOutflow) -> None:
        """Do what the session before this one had no channel for, or no time."""
        if self._refusal:
            refused = self._rest[0]
            await outflow.bury(refused, self._refusal)
            self._unkept, self._rest = refused, self._rest[1:]
            self._singly, self._refusal = 0, ""
        await self._keep(outflow)

    async def _keep(self, outflow: IOutflow) -> None:
        if self._unkept is not None:
            await outflow.confirmed(self._unkept.position)
            self._unkept = None


async def see_exchange(connection: Connection, exchange: str) -> None:
    """See that an exchange is there, on a channel that may be closed for it.

    Raises:
        TowerbusError: It is not.
    """
    channel = await connection.channel(vital=False)
    try:
        await channel.declare_exchange(exchange, "topic", passive=True)
    except ChannelClosed as error:
        if error.code == NOT_FOUND:
            raise TowerbusError(_missing(exchange)) from error
        raise
    channel.close()


def _missing(exchange: str) -> str:
    return f"exchange {exchange!r} is not there: make it, or mend its name"


def _told_already(_: object) -> None:
    """The first failure is told; what is behind it is published again."""


async def look(options: Options, surroundings: Surroundings) -> Sequence[Finding]:
    """Look whether the exchange is there."""

    async def see(connection: Connection, where: Broker) -> Sequence[Finding]:
        try:
            if options.exchange:
                await see_exchange(connection, options.exchange)
        except TowerbusError as error:
            return [findings.error("sink", str(error), "make the exchange, or mend its name")]
        return [findings.ok("sink", f"exchange {options.exchange!r} is on {where}")]

    return await looked_at(options.url, "sink", surroundings.reactor, see)
