"""Reading a stream, and what RabbitMQ does then."""

import contextlib

import pytest
import pytest_twisted
from pika import BasicProperties
from support.log_writer import LogWriter
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from towerbus.amqp import stream as stream_module
from towerbus.amqp.channel import Delivery
from towerbus.amqp.connection import connect
from towerbus.amqp.errors import ChannelClosed
from towerbus.amqp.properties import Received
from towerbus.amqp.stream import NotAStream, StreamGone, StreamReader, StreamSilent, offset_of, read, read_end
from towerbus.amqp.url import parse

LOG = "towerbus.log"


@pytest.fixture
def writer(vhost):
    with LogWriter(vhost) as writer:
        yield writer.declare()


@contextlib.asynccontextmanager
async def connected(url):
    connection = await connect(parse(url), "tests", reactor)
    try:
        yield connection
    finally:
        await connection.end()


class Reading:
    """One who reads, and may wait or fail."""

    def __init__(self, **given):
        self.offsets, self.ended, self.wait = [], [], None
        self.reader = StreamReader(self.take, self.ended.append, **given)

    def take(self, offset, body):
        self.offsets.append(offset)
        return self.wait

    async def until(self, count):
        await until(lambda: len(self.offsets) >= count)
        return self.offsets


@pytest_twisted.ensureDeferred
async def test_everything_from_an_offset_on_and_what_comes_later(vhost, writer):
    writer.numbers(0, 300)
    async with connected(vhost) as connection:
        one, other, first = Reading(), Reading(prefetch=1), Reading()
        await one.reader.open(connection, LOG, 120)
        await other.reader.open(connection, LOG, 120)
        await first.reader.open(connection, LOG, "first")
        await one.until(180)
        writer.numbers(300, 10)
        assert await one.until(190) == list(range(120, 310))
        assert await other.until(190) == list(range(120, 310))
        assert await first.until(310) == list(range(310))


@pytest_twisted.ensureDeferred
async def test_the_end_is_the_end_whatever_the_last_chunk_holds(vhost, writer):
    async with connected(vhost) as connection:
        for count in (1, 2, 5, 100, 3000, 1):
            writer.numbers(0, count)
            end = await read_end(connection, LOG, reactor)
            stored = await read(connection, LOG, end.offset, reactor)
            assert stored == [end]
            silent = Reading()
            await silent.reader.open(connection, LOG, end.offset + 1)
            await deferLater(reactor, 0.05, lambda: None)
            assert silent.offsets == []
            silent.reader.close()


@pytest_twisted.ensureDeferred
async def test_a_part_is_read_up_to_an_offset(vhost, writer):
    writer.numbers(0, 300)
    async with connected(vhost) as connection:
        part = await read(connection, LOG, 50, reactor, until=250)
        assert [stored.offset for stored in part][:201] == list(range(50, 251))


@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_not_waited_for_for_ever(vhost, writer, monkeypatch):
    monkeypatch.setattr(stream_module, "PATIENCE", 0.3)
    async with connected(vhost) as connection:
        with pytest.raises(StreamSilent, match=r"towerbus\.log is empty, or stuck"):
            await read_end(connection, LOG, reactor)
        writer.numbers(0, 5)
        with pytest.raises(StreamSilent):
            await read(connection, LOG, 99, reactor)
        with pytest.raises(ChannelClosed, match="404"):
            await read_end(connection, "nowhere", reactor)


@pytest_twisted.ensureDeferred
async def test_one_that_asks_to_wait_gets_the_rest_in_order(vhost, writer):
    writer.numbers(0, 1000)
    async with connected(vhost) as connection:
        reading = Reading(prefetch=20)
        reading.wait = Deferred()
        await reading.reader.open(connection, LOG, "first")
        await until(lambda: reading.reader.paused)
        await deferLater(reactor, 0.2, lambda: None)
        assert reading.offsets == [0]
        assert len(reading.reader._held) < 500
        wait, reading.wait = reading.wait, None
        wait.errback(ValueError("whatever"))
        assert await reading.until(1000) == list(range(1000))


@pytest_twisted.ensureDeferred
async def test_one_that_fails_ends_its_reader_only(vhost, writer):
    writer.numbers(0, 10)
    async with connected(vhost) as connection:
        reading, other = Reading(), Reading()
        reading.take = lambda offset, body: 1 / 0
        reading.reader._deliver = reading.take
        await reading.reader.open(connection, LOG, "first")
        await other.reader.open(connection, LOG, "first")
        assert await other.until(10) == list(range(10))
        assert [failure.type for failure in reading.ended] == [ZeroDivisionError]
        assert other.ended == []


@pytest_twisted.ensureDeferred
async def test_one_that_is_closed_hears_nothing_more(vhost, writer):
    writer.numbers(0, 1000)
    async with connected(vhost) as connection:
        reading = Reading()

        def take(offset, body):
            reading.offsets.append(offset)
            if offset == 5:
                reading.reader.close()

        reading.reader._deliver = take
        await reading.reader.open(connection, LOG, "first")
        await reading.until(6)
        await deferLater(reactor, 0.1, lambda: None)
        assert (reading.offsets, reading.ended) == (list(range(6)), [])
        assert (await read_end(connection, LOG, reactor)).offset == 999, "the connection lives"


@pytest_twisted.ensureDeferred
async def test_the_end_of_the_stream_and_of_the_connection_are_told_once(vhost, writer):
    writer.numbers(0, 10)
    async with connected(vhost) as connection, connected(vhost) as another:
        deleted, cut = Reading(), Reading()
        await deleted.reader.open(connection, LOG, "first")
        await cut.reader.open(another, LOG, "first")
        await deleted.until(10)
        await cut.until(10)
        another.transport.abortConnection()
        await until(lambda: cut.ended)
        writer.delete()
        await until(lambda: deleted.ended)
        assert deleted.ended[0].check(StreamGone)
        assert cut.ended[0].check(ChannelClosed)
    assert (len(deleted.ended), len(cut.ended)) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_a_queue_of_another_kind_is_refused_by_the_broker(vhost):
    async with connected(vhost) as connection:
        channel = await connection.channel()
        await channel.declare_queue(LOG)
        with pytest.raises(ChannelClosed, match="406.*queue type"):
            await read_end(connection, LOG, reactor)


def delivery(properties):
    return Delivery(1, "", False, properties, b"")


def test_where_a_delivery_stands():
    table = b"\x04whenT\x00\x03\x8d~\xa4\xc6\x80\x00\x0fx-stream-offsetl" + (2**40).to_bytes(8) + b"\x01zt\x01"
    raw = b"\x20\x00" + len(table).to_bytes(4) + table
    assert offset_of(delivery(Received(raw))) == 2**40
    for nothing in (Received(b"\x00\x00"), Received(b"nothing"), BasicProperties()):
        with pytest.raises(NotAStream):
            offset_of(delivery(nothing))
