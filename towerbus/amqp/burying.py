"""Puts what can't be taken in the bus's dead queue, for processes that are not the worker."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from pika import BasicProperties
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from towerbus.amqp.channel import Delivery
from towerbus.amqp.connection import Connection
from towerbus.amqp.errors import Unpublished
from towerbus.amqp.service import AmqpService, State
from towerbus.amqp.topology import DEAD, Names
from towerbus.amqp.url import Broker
from towerbus.amqp.worker import dead
from towerbus.event import MAX_ID
from towerbus.worker.told import Told

PAUSE = 0.5
"""Seconds before a letter is put there again that the broker did not take."""
MAX_BODY = 8 * 1024 * 1024
"""Bytes of a body that are kept: RabbitMQ refuses large messages (`max_message_size`, 16 MiB since RabbitMQ 4), and
closes the channel. What comes from a foreign system may be larger."""
SIZE = "towerbus-size"
"""The header with the bytes that a body had which was cut."""
_log = Logger()


class Letter(NamedTuple):
    """What is to be kept, with all that is known of it.

    Attributes:
        body: Its bytes.
        reason: Why it can't be taken.
        headers: What else is to be seen.
        message_id: Its own id, if it has one.
        content_type: The body's.
        routing_key: Its own.
        place: Where it came from.
    """

    body: bytes
    reason: str
    headers: Mapping[str, Any]
    message_id: str | None = None
    content_type: str = ""
    routing_key: str = ""
    place: str = ""


class DeadLetters(AmqpService):
    """Keeps letters, one after the other, while it runs.

    Args:
        broker: The bus's.
        reactor: Connects, and tells the time.
        refused: As `AmqpService` has it.
    """

    def __init__(self, broker: Broker, reactor: Any, *, refused: Callable[[str], None] | None = None) -> None:
        super().__init__(broker, "dead letters", reactor, self._bury_all, refused=refused)
        self._names = Names(broker.prefix)
        self._clock = reactor
        self._letters: OrderedDict[Deferred[None], Letter] = OrderedDict()
        self._wake: Deferred[None] | None = None
        self._buried = Told(reactor, _tell)
        self.refusal = ""
        """Why the broker does not take the letter that is next; empty where it does."""

    def bury(self, letter: Letter) -> Deferred[None]:
        """Keep a letter.

        Returns:
            A Deferred that fires when the broker has confirmed it. It waits for the broker as long as it takes, and
            never fails; it may be cancelled.
        """

        def cancel(cancelled: Deferred[None]) -> None:
            self._letters.pop(cancelled, None)

        kept: Deferred[None] = Deferred(cancel)
        self._letters[kept] = letter
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)
        return kept

    def stopService(self) -> Deferred[None]:
        """End the connection; letters that wait are not kept, and come again."""
        self._buried.close()
        return super().stopService()

    async def _bury_all(self, connection: Connection, established: Callable[[], None]) -> None:
        channel = await connection.channel()
        await channel.confirm()
        await channel.declare_exchange(self._names.direct, "direct", passive=True)
        established()
        while self.state is State.ESTABLISHED:
            if not self._letters or self.blocked:
                await self._something_to_do()
                continue
            kept, letter = next(iter(self._letters.items()))
            properties = _properties(letter, connection.frame_max)
            try:
                await channel.publish(self._names.direct, DEAD, letter.body[:MAX_BODY], properties)
            except Unpublished as error:
                if not self.refusal:
                    _log.warn("not_buried: {reason}; trying again", reason=str(error))
                self.refusal = f"the dead queue takes nothing: {error}"
                await deferLater(self._clock, PAUSE, lambda: None)
                continue
            self.refusal = ""
            if self._letters.pop(kept, None) is not None:
                self._buried.add(letter.reason)
                with suppress(Exception):
                    kept.callback(None)

    async def _something_to_do(self) -> None:
        if self.blocked:
            await deferLater(self._clock, PAUSE, lambda: None)
            return
        wake = self._wake = Deferred()
        try:
            await wake
        finally:
            self._wake = None


def _properties(letter: Letter, frame_max: int) -> BasicProperties:
    id_, size = letter.message_id, len(letter.body)
    cut = {SIZE: size} if size > MAX_BODY else {}
    given = BasicProperties(
        headers=dict(letter.headers) | cut,
        content_type=letter.content_type[:MAX_ID] or None,
        # By it a message is known that the broker returns.
        message_id=id_ if id_ and id_.isascii() and len(id_) <= MAX_ID else uuid.uuid4().hex,
    )
    delivery = Delivery(0, letter.routing_key[:255], False, given, letter.body, letter.place[:255])  # noqa: FBT003
    return dead.properties(delivery, letter.reason, time.time(), frame_max)


def _tell(count: int, reason: str) -> None:
    _log.warn(
        "dead_lettered: {count} messages can't be taken, and are in the dead queue: {reason}",
        count=count,
        reason=reason,
    )
