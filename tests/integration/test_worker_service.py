"""The worker in this process: what it counts, and what is hard to bring about from outside."""

import time
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from support.producers import channel, emit, emit_packed
from support.worker import LogText
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs

from towerbus.amqp.connection import connect
from towerbus.amqp.names import Limits, Names
from towerbus.amqp.service import State
from towerbus.amqp.topology import declare
from towerbus.amqp.url import parse
from towerbus.amqp.worker import reader as reader_module
from towerbus.amqp.worker import service as service_module
from towerbus.amqp.worker import session as session_module
from towerbus.amqp.worker.ends import LogSilent
from towerbus.amqp.worker.reader import LogReader
from towerbus.amqp.worker.service import WorkerService
from towerbus.amqp.worker.session import Setup
from towerbus.amqp.worker.writer import Writer
from towerbus.log.packing import pack
from towerbus.log.record import Record
from towerbus.worker.counters import Counters, Role


@asynccontextmanager
async def running(url, **given):
    """A worker."""
    refused = []
    broker = parse(url)
    worker = WorkerService(broker, Setup(Names(broker.prefix), **given), reactor, hopeless=refused.append)
    worker.startService()
    try:
        yield worker
    finally:
        await worker.stopService()
    assert not refused
    assert worker.counters.role is Role.WAITING


async def until(condition):
    while not condition():
        await deferLater(reactor, 0.02, lambda: None)


def produce(url, *bodies):
    with channel(url) as producer:
        for body in bodies:
            body(producer)


@pytest_twisted.ensureDeferred
async def test_it_counts(vhost):
    async with running(vhost) as worker:
        await until(lambda: worker.counters.role is Role.ACTIVE)
        await deferToThread(
            produce,
            vhost,
            lambda producer: emit_packed(producer, ["a", "b", "c"]),
            lambda producer: emit(producer, None, b"bad"),
            lambda producer: emit(producer, "a"),
            lambda producer: emit(producer, "d"),
        )
        counters = worker.counters
        await until(lambda: counters.events == 4 and counters.repeats == 1 and counters.dead == 1)
        assert 1 <= counters.records <= 4
        assert abs(counters.last_record - time.time()) < 60
        assert abs(counters.term - time.time()) < 60
        assert len(counters.epoch) == 8
        await until(lambda: counters.in_hand == 0)
        await until(lambda: worker.state is State.ESTABLISHED)  # in two seconds: the queues are new
        assert worker.trouble == ""


@pytest_twisted.ensureDeferred
async def test_a_log_that_confirms_nothing_ends_the_session(broker, vhost, monkeypatch):
    monkeypatch.setattr(session_module, "STALLED", 3)
    monkeypatch.setattr(session_module, "TICK", 0.1)
    name = vhost.rsplit("/", 1)[1]
    writer = (
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{name}">>, queue, <<"towerbus.log">>)), '
        "sys:VERB(amqqueue:get_pid(Q))"
    )
    async with running(vhost) as worker:
        await until(lambda: worker.counters.role is Role.ACTIVE)
        await deferToThread(broker.evaluate, writer.replace("VERB", "suspend"))
        await deferToThread(produce, vhost, lambda producer: emit(producer, "a"))
        await until(lambda: "has not confirmed" in worker.trouble)
        await deferToThread(broker.evaluate, writer.replace("VERB", "resume"))
        await until(lambda: worker.counters.role is Role.ACTIVE and worker.counters.repeats + worker.counters.events)
    assert await deferToThread(ids_in, vhost, 1) == ["a"]


def ids_in(url, count):
    with LogText(url) as log:
        return list(log.await_events(count))


@pytest_twisted.ensureDeferred
async def test_it_has_more_in_hand_again_after_a_while(vhost, monkeypatch):
    monkeypatch.setattr(session_module, "WHILE", 3)
    monkeypatch.setattr(session_module, "TICK", 0.1)
    async with running(vhost, prefetch=15) as worker:
        await until(lambda: worker._setup.prefetch == 120)
        await until(lambda: worker.counters.role is Role.ACTIVE)


@pytest_twisted.ensureDeferred
async def test_sessions_that_end_soon_one_after_the_other_are_begun_more_slowly(vhost, monkeypatch):
    monkeypatch.setattr(service_module, "SOME", 1)
    async with running(vhost) as worker:
        for _ in range(3):
            await until(lambda: worker.counters.role is Role.ACTIVE)
            await deferToThread(produce, vhost, lambda producer: producer.queue_delete("towerbus.log"))
            await until(lambda: worker.counters.role is Role.WAITING)
        with capturedLogs() as lines:
            await until(lambda: worker.counters.role is Role.ACTIVE)
        assert [line for line in lines if line["log_format"].startswith("worker_slowed")]


class Raced(Writer):
    """Another worker writes a fence just before each of the first fences of this one."""

    def __init__(self, *given):
        super().__init__(*given)
        self.others = []
        self.written = []

    def _publish(self, record, id_):
        self.written.append(record)
        if self.others:
            other = self.others.pop(0)(record)
            with channel(self.url) as opened:
                opened.basic_publish("", "towerbus.log", pack(other), mandatory=True)
        return super()._publish(record, id_)


@asynccontextmanager
async def raced_writer(url):
    connection = await connect(parse(url), "test", reactor)
    opened = await connection.channel()
    await declare(connection, opened, Names("towerbus"), Limits())
    await opened.confirm()
    reader = LogReader(connection, "towerbus.log", reactor, foreign=lambda *_: None, ended=lambda _: None)
    await reader.begin()
    writer = Raced(opened, Names("towerbus"), reader, Counters(), reactor, 131_072)
    writer.url = url
    try:
        yield writer
    finally:
        reader.close()
        await connection.end()


@pytest_twisted.ensureDeferred
async def test_two_that_make_a_log_at_once_agree_on_one_epoch(vhost):
    async with raced_writer(vhost) as writer:
        writer.others = [lambda ours: Record("0a", ours.term, 0, ())]
        await writer.fence()
        assert (writer.epoch, writer.term) == ("0a", writer.written[0].term + 1)
        assert [record.epoch for record in writer.written] == [writer.written[0].epoch, "0a"]


@pytest_twisted.ensureDeferred
async def test_a_fence_is_above_one_of_the_same_term_that_came_just_before(vhost):
    async with raced_writer(vhost) as writer:
        await writer.fence()
        first = writer.term
        writer.others = [lambda ours: ours, lambda ours: Record(ours.epoch, ours.term + 5, 0, ())]
        await writer.fence()
        assert [record.term for record in writer.written] == [first, first + 1, first + 2, first + 8]


@pytest_twisted.ensureDeferred
async def test_a_record_that_must_be_there_and_does_not_come_is_an_error(vhost, monkeypatch):
    monkeypatch.setattr(reader_module, "SILENT", 0.3)
    async with raced_writer(vhost) as writer:
        await writer.fence()
        try:
            await writer._reader._read(0, 10)
        except LogSilent as error:
            assert "offset 10" in str(error)
        else:
            raise AssertionError("it waits for ever")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("end", ["the channel", "the connection"])
async def test_what_is_given_back_comes_before_what_is_new(vhost, end):
    """RabbitMQ lets the next single active consumer begin when one is cancelled, before that one gives anything back."""
    first, second = await connect(parse(vhost), "first", reactor), await connect(parse(vhost), "second", reactor)
    opened, next_ = await first.channel(), await second.channel()
    await declare(first, opened, Names("towerbus"), Limits())
    got, then = [], []
    await opened.limit(5)
    await opened.consume("towerbus.intake", lambda delivery: got.append(delivery.body))
    await next_.limit(100)
    await next_.consume("towerbus.intake", lambda delivery: then.append(delivery.body))
    bodies = [b"%d" % number for number in range(20)]
    await deferToThread(produce, vhost, *(lambda producer, body=body: emit(producer, None, body) for body in bodies))
    await until(lambda: len(got) == 5)
    assert not then
    if end == "the channel":
        opened.close()
    else:
        await first.end()
    await until(lambda: len(then) == 20)
    assert then == bodies
    await first.end()
    await second.end()
