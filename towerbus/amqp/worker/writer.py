"""The worker writes: fences, records and dead letters, all on the one channel that has the intake.

So a worker that was frozen and comes back can do no harm: before the broker gave the intake to another, it had closed
this channel's connection, and whatever was still to be written dies with the socket.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from pika import BasicProperties
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.logger import Logger

from towerbus.amqp.channel import Channel
from towerbus.amqp.names import PERSISTENT
from towerbus.amqp.properties import Stamp
from towerbus.amqp.topology import DEAD, INTAKE, LOG, Names
from towerbus.amqp.worker import dead
from towerbus.amqp.worker.reader import LogReader
from towerbus.intake.messages import KNOCK
from towerbus.log.packing import pack
from towerbus.log.record import Record
from towerbus.positions import new_epoch
from towerbus.worker.counters import Counters
from towerbus.worker.ordering import Step
from towerbus.worker.told import Told

RECORD = "application/vnd.towerbus.record+msgpack"
"""Content type of a record in the log."""
_RECORDS = Stamp(RECORD)

_log = Logger()


class Writer:
    """Writes for one session.

    Args:
        channel: The one that consumes the intake, with confirms.
        names: The broker's objects.
        reader: Reads the log along.
        counters: Counts what was written.
        reactor: Calls later.
        frame_max: Bytes in a frame, at the most, as it was agreed with the broker.
    """

    def __init__(
        self, channel: Channel, names: Names, reader: LogReader, counters: Counters, reactor: Any, frame_max: int
    ) -> None:
        self._channel = channel
        self._names = names
        self._reader = reader
        self._counters = counters
        self._frame_max = frame_max
        self._number = 0
        self._own = reader.own = f"{uuid.uuid4().hex}-"
        self._told = Told(reactor, _tell_dead)
        self.epoch = ""
        """Of our fence."""
        self.term = 0
        """Of our fence."""

    def knock(self) -> Deferred[None]:
        """Put a message without events in the intake: the active worker gets it, and learns so that it is that."""
        properties = BasicProperties(content_type=KNOCK, delivery_mode=PERSISTENT, message_id=self._next_id())
        return self._channel.publish(self._names.direct, INTAKE, b"", properties)

    async def fence(self) -> None:
        """Write a fence, and wait until it was read back: then all that stands before it is known.

        Another worker, of which nothing had been read yet, may have written just before it a fence of the same term, or
        the first record of an empty log; then it takes another fence, above that.
        """
        known = self._reader.known
        if not known.epoch:
            await self._reader.look()
        while True:
            made = not known.epoch
            epoch, term = known.epoch or new_epoch(), known.next_term(time.time())
            id_ = self._next_id()
            seen = self._reader.seen(id_)
            await self._publish(Record(epoch, term, 0, ()), id_)
            await seen
            if known.fenced(epoch, term):
                break
        self.epoch, self.term = epoch, term
        self._counters.epoch, self._counters.term = epoch, term
        if made:
            _log.info("log_made: epoch {epoch}", epoch=epoch)
        _log.info("fence_written: epoch {epoch}, term {term}", epoch=epoch, term=term)

    async def write(self, step: Step, *, look: bool) -> None:
        """Write a step's record and its dead letters, and wait until all of it is confirmed.

        Args:
            step: What to write.
            look: Whether to see what stands before the record, too: another worker may have been active since the last.
        """
        waits = [self._bury(message, reason) for message, reason in step.dead]
        seen = None
        if step.events:
            id_ = self._next_id()
            seen = self._reader.seen(id_) if look else None
            waits.append(self._publish(Record(self.epoch, self.term, 0, step.events), id_))
        await _all(waits)
        if seen is not None:
            self.catch_up()
            await seen
        counters = self._counters
        counters.repeats += step.repeats
        counters.dead += len(step.dead)
        if step.events:
            counters.records += 1
            counters.events += len(step.events)
            counters.last_record = time.time()
        for _, reason in step.dead:
            self._told.add(reason)

    def catch_up(self) -> None:
        """Have the log read up to what was written last."""
        self._reader.read_up_to(self._number)

    def close(self) -> None:
        """Tell what is not told yet."""
        self._told.close()

    def _publish(self, record: Record, id_: str) -> Deferred[None]:
        return self._channel.publish(self._names.direct, LOG, pack(record), _RECORDS(id_, int(time.time())))

    def _bury(self, message: Any, reason: str) -> Deferred[None]:
        properties = dead.properties(message, reason, time.time(), self._frame_max)
        return self._channel.publish(self._names.direct, DEAD, message.body, properties)

    def _next_id(self) -> str:
        self._number += 1
        return f"{self._own}{self._number}"


async def _all(waits: list[Deferred[None]]) -> None:
    """Wait for all of them."""
    if len(waits) == 1:
        await waits[0]
        return
    try:
        await gatherResults(waits, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()


def _tell_dead(count: int, reason: str) -> None:
    _log.warn(
        "dead_lettered: {count} messages can't be taken, and are in the dead queue: {reason}",
        count=count,
        reason=reason,
    )
