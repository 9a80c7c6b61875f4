"""The worker reads the log: back from its end until it knows enough, and then along.

How far back is a matter of counting. A time would be counted from now, and after a long outage nothing would be in it.
Nor does it say anything that no more comes: the end is first known by a look at the last record, and in the end by the
worker's own fence. Only where there is nothing at all is an empty log believed in, after several looks; a record that
comes later than that is still read before the worker's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from towerbus.amqp.channel import Channel, Delivery
from towerbus.amqp.connection import Connection
from towerbus.amqp.names import OFFSET
from towerbus.amqp.stream import offset_of
from towerbus.amqp.worker.ends import LogDeleted, LogSilent
from towerbus.log.packing import NotARecord, unpack
from towerbus.log.record import Record
from towerbus.log.window import SIZE
from towerbus.worker.known import KnownLog
from towerbus.worker.told import Told

PREFETCH = 32
"""Records that may be under way; a stream sends whole chunks all the same."""
BACK = (512, 4096, 32_768, SIZE)
"""How many records back it reads; farther only where those held fewer ids than the window has room for."""
MAX_BACK = 64 * 1024 * 1024
"""Bytes of records, at the most, after which it reads still farther back."""
LOOKS, LOOK = 3, 0.1
"""An empty log is believed in after so many looks, and seconds between them: each is answered with no record in it, and
none comes. (The count lags by seconds, so one look would not do.)"""
SILENT = 10.0
"""Seconds without a record that must be there, after which the reading is given up."""

_log = Logger()


class LogReader:
    """Reads the log of one session.

    Args:
        connection: Where.
        queue: The stream's name.
        reactor: Calls later.
        foreign: Called with each record that is not our own, and whether it counts.
        ended: Called when the log can't be read any more.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        reactor: Any,
        *,
        foreign: Callable[[Record, bool], None],
        ended: Callable[[Exception], None],
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._reactor = reactor
        self._foreign = foreign
        self._ended = ended
        self._channel: Channel | None = None
        self._end = -1
        self._reached: Deferred[None] = Deferred()
        self._late: Any = None
        self._first: int | None = None
        self._bytes = 0
        self._unacked = self._tag = 0
        self._goal: int | None = None
        self._newest = 0
        self._awaited: dict[str, Deferred[None]] = {}
        self._junk = Told(reactor, _tell_junk)
        self.known = KnownLog()
        """What is known of the log."""
        self.own = "\0"
        """What the ids of our own records begin with."""

    async def begin(self) -> None:
        """Read back until enough is known, and go on reading.

        Raises:
            LogSilent: The log can't be read.
        """
        end = await self._last()
        if end is None:
            await self._read("first", -1)
            return
        for back in BACK:
            start = max(0, end - back)
            await self._read(start, end)
            # RabbitMQ uses up an offset itself now and then: one that is missing does not say that retention took it.
            complete = start == 0 or self._first is None or self._first > start + 2
            if complete or len(self.known.window) >= SIZE or self._bytes > MAX_BACK:
                break
        _log.info(
            "log_read: {records} records back; {ids} ids, epoch {epoch}, term {term}",
            records=end - (self._first or 0) + 1,
            ids=len(self.known.window),
            epoch=self.known.epoch,
            term=self.known.term,
        )

    async def look(self) -> None:
        """Wait until a record was read, or an empty log may be believed in."""
        assert self._channel is not None  # noqa: S101 - it was begun
        for _ in range(LOOKS):
            if self.known.epoch:
                return
            await self._channel.declare_queue(self._queue, passive=True)
            await deferLater(self._reactor, LOOK, lambda: None)

    def seen(self, id_: str) -> Deferred[None]:
        """A Deferred that fires when one of our own records is read, with what was read before it taken note of."""
        return self._awaited.setdefault(id_, Deferred())

    def read_up_to(self, number: int) -> None:
        """Read up to one of our own records, and from then on only what the broker sends by itself.

        Who writes the log knows what is in it, and looks now and then whether that is all. Each record would wake the
        broker's reader and ours; many together cost a fraction. The consumer stays: it ends when the log is deleted.

        Args:
            number: What the record's id ends with. They rise.
        """
        self._goal = number
        self._acknowledge()

    def close(self) -> None:
        """Read no more."""
        self._junk.close()
        self._close()

    async def _last(self) -> int | None:
        """An offset in the log's last chunk; None where no record is there."""
        channel = await self._connection.channel()
        found: list[int] = []
        looks, late = 0, self._reactor.seconds() + SILENT
        try:
            await channel.limit(1)
            await channel.consume(
                self._queue, lambda delivery: found.append(offset_of(delivery)), arguments={OFFSET: "last"}
            )
            while not found and looks < LOOKS:
                count, _ = await channel.declare_queue(self._queue, passive=True)
                looks = 0 if count else looks + 1
                if count and self._reactor.seconds() > late:
                    raise LogSilent(f"{self._queue}: it has {count} records; the last does not come in {SILENT:g} s")
                if not found:
                    await deferLater(self._reactor, LOOK, lambda: None)
        finally:
            channel.close()
        return found[0] if found else None

    async def _read(self, start: int | str, end: int) -> None:
        """Begin to read at an offset, with nothing known, and wait until another is reached, if that is not -1."""
        self._close()
        self.known, self._reached = KnownLog(), Deferred()
        self._first, self._end, self._bytes, self._unacked = None, end, 0, 0
        channel = self._channel = await self._connection.channel()
        await channel.limit(PREFETCH)

        def take(delivery: Delivery) -> None:
            if channel is self._channel:
                self._take(delivery)

        await channel.consume(self._queue, take, arguments={OFFSET: start}, cancelled=self._was_cancelled)
        if end < 0 or self._reached.called:
            return
        self._late = self._reactor.callLater(SILENT, self._silent)
        try:
            await self._reached
        finally:
            if self._late.active():
                self._late.cancel()
            self._late = None

    def _take(self, delivery: Delivery) -> None:
        offset = offset_of(delivery)
        self._first = offset if self._first is None else self._first
        self._bytes += len(delivery.body)
        self._unacked, self._tag = self._unacked + 1, delivery.tag
        id_ = delivery.properties.message_id
        if isinstance(id_, str) and id_.startswith(self.own):
            self._take_own(id_)
        else:
            self._take_foreign(offset, delivery.body)
        if self._unacked * 2 >= PREFETCH and (self._goal is None or self._newest < self._goal):
            self._acknowledge()
        if self._late is not None:
            self._late.reset(SILENT)
        if offset >= self._end and not self._reached.called:
            self._reached.callback(None)

    def _take_own(self, id_: str) -> None:
        """What stands in it is known since it was confirmed; only whoever waits for it must hear of it."""
        self._newest = int(id_.removeprefix(self.own))
        seen = self._awaited.pop(id_, None)
        if seen is not None and not seen.called:
            seen.callback(None)

    def _take_foreign(self, offset: int, body: bytes) -> None:
        try:
            record = unpack(body, offset)
        except NotARecord as error:
            self._junk.add(str(error))
        else:
            self._foreign(record, self.known.read(record))

    def _silent(self) -> None:
        self._reached.errback(LogSilent(f"{self._queue}: nothing comes up to offset {self._end}, which must be there"))

    def _was_cancelled(self) -> None:
        self._ended(LogDeleted("the log can't be read any more: it was deleted, or its node went down"))

    def _acknowledge(self) -> None:
        """Have the broker send more: what there is, or no more than leads to the goal.

        And one record behind that: where another worker writes while we have nothing to write, it shows at once.
        """
        count = self._unacked
        if self._goal is not None:
            under_way = PREFETCH - self._unacked
            count = min(count, self._goal - self._newest + 1 - under_way)
        if count > 0 and self._channel is not None:
            self._unacked -= count
            self._channel.ack(self._tag - self._unacked, multiple=True)

    def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


def _tell_junk(count: int, what: str) -> None:
    _log.warn(
        "log_junk: {count} messages in the log are no records, and were passed over: {what}", count=count, what=what
    )
