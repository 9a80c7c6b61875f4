"""How much of the log an active worker asks for: up to its own newest record, and one more."""

import pytest
import pytest_twisted
from pika import BasicProperties
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from towerbus.amqp.channel import Delivery
from towerbus.amqp.properties import Received
from towerbus.amqp.worker.reader import PREFETCH, LogReader
from towerbus.log.packing import pack
from towerbus.log.record import Record


class Stream:
    """A channel with a log that is sent on as far as credit goes, a record or a whole chunk at a time."""

    def __init__(self):
        self.records = []
        self.sent = self.acked = self.credit = 0

    async def limit(self, prefetch):
        self.credit = prefetch

    async def consume(self, queue, deliver, *, arguments, cancelled):
        self._deliver = deliver

    def ack(self, tag, *, multiple):
        assert multiple
        assert self.acked < tag <= self.sent
        self.credit += tag - self.acked
        self.acked = tag

    def send(self, chunk=1):
        """Send what there is credit for."""
        while self.credit > 0 and self.sent < len(self.records):
            for id_ in self.records[self.sent : self.sent + chunk]:
                properties = BasicProperties(headers={"x-stream-offset": 2**40 + self.sent}, message_id=id_)
                self.credit -= 1
                self.sent += 1
                received = Received(b"".join(properties.encode()))
                self._deliver(Delivery(self.sent, "", False, received, pack(Record("e", 1, 0, ()))))  # noqa: FBT003

    async def channel(self):
        return self


class Writing:
    """A worker that writes, and its reader."""

    def __init__(self):
        self.stream, self.foreign, self.number = Stream(), [], 0
        self.reader = LogReader(
            self.stream,
            "log",
            Clock(),
            foreign=lambda record, _: self.foreign.append(record),
            ended=self.foreign.append,
        )
        self.reader.own = "own-"

    def write(self, count, *, foreign=0):
        for _ in range(count):
            self.number += 1
            self.stream.records.append(f"own-{self.number}")
        self.stream.records += ["theirs"] * foreign

    def look(self, chunk=1):
        self.reader.read_up_to(self.number)
        self.stream.send(chunk)


@pytest.fixture
def writing():
    made = Writing()
    pytest_twisted.blockon(Deferred.fromCoroutine(made.reader._read("first", -1)))
    return made


def test_all_is_read_as_long_as_there_is_no_goal(writing):
    writing.write(10 * PREFETCH)
    writing.stream.send()
    assert writing.stream.sent == 10 * PREFETCH


@pytest.mark.parametrize("chunk", [1, 7, 5 * PREFETCH])
@pytest.mark.parametrize("written", [1, PREFETCH // 2, PREFETCH, 10 * PREFETCH])
def test_with_a_goal_all_up_to_it_is_read_and_little_behind_it(writing, written, chunk):
    writing.write(PREFETCH)
    writing.look()
    for _ in range(3):
        writing.write(written)
        writing.look(chunk)
        assert writing.stream.sent == len(writing.stream.records)
        assert writing.stream.credit <= 1
        # Whoever writes on sees no more of it until the next look.
        before = writing.stream.sent
        writing.write(100)
        writing.stream.send()
        assert writing.stream.sent <= before + 1


def test_a_goal_behind_records_of_others_is_reached(writing):
    writing.write(PREFETCH)
    writing.look()
    writing.write(3, foreign=5 * PREFETCH)
    writing.write(1)
    seen = writing.reader.seen("own-36")
    writing.look()
    assert seen.called
    assert len(writing.foreign) == 5 * PREFETCH


def test_what_another_writes_shows_at_once_though_we_write_nothing(writing):
    for count in (PREFETCH, 10 * PREFETCH):
        writing.write(count)
        writing.look()
    assert writing.foreign == []
    writing.write(0, foreign=1)
    writing.stream.send()
    assert len(writing.foreign) == 1
    for expected in (2, 3):
        writing.write(0, foreign=1)
        writing.look()
        assert len(writing.foreign) == expected
