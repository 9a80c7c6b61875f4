"""A channel: what is confirmed, returned and refused is told of the right message, and its end of everything."""

import random

import pytest
import pytest_twisted
from pika import BasicProperties
from support.intakes import channel as plain_channel
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.threads import deferToThread

from towerbus.amqp.connection import connect
from towerbus.amqp.errors import ChannelClosed, Unpublished
from towerbus.amqp.names import PERSISTENT
from towerbus.amqp.properties import EVENTS
from towerbus.amqp.url import parse


class Opened:
    """A connection with a channel that confirms."""

    def __init__(self, url):
        self.url = url

    async def __aenter__(self):
        self.connection = await connect(parse(self.url), "test", reactor)
        self.channel = await self.connection.channel(vital=False)
        await self.channel.confirm()
        return self.channel

    async def __aexit__(self, *reason):
        await self.connection.end()


def properties(id_):
    return BasicProperties(message_id=id_, delivery_mode=PERSISTENT)


async def kept(url, queue):
    """The ids of the messages in a queue."""

    def read():
        found = []
        with plain_channel(url) as channel:
            while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
                found.append(message[1].message_id)
        return found

    return await deferToThread(read)


@pytest_twisted.ensureDeferred
async def test_hundreds_that_are_confirmed_returned_and_refused_are_each_told_right(vhost):
    """pika's own channel mixes them up: the broker acknowledges several at once, and pika keeps one return."""
    async with Opened(vhost) as channel:
        await channel.declare_queue("room", {"x-queue-type": "quorum"})
        await channel.declare_queue("full", {"x-max-length": 1, "x-overflow": "reject-publish"})
        await channel.publish("", "full", b"x", properties("first"))
        wanted = random.Random(1).choices(["room", "nowhere", "full"], k=900)
        calls = [channel.publish("", key, b"x", properties(f"id{n}")) for n, key in enumerate(wanted)]
        assert channel.unconfirmed == 900
        outcomes = await DeferredList(calls, consumeErrors=True)
        assert channel.unconfirmed == 0
    told = {"room": [], "nowhere": [], "full": []}
    for n, (done, result) in enumerate(outcomes):
        if done:
            told["room"].append(n)
        else:
            assert isinstance(result.value, Unpublished)
            told["nowhere" if result.value.returned else "full"].append(n)
            assert ("NO_ROUTE nowhere" in str(result.value)) == result.value.returned
    assert told == {key: [n for n, each in enumerate(wanted) if each == key] for key in told}
    assert await kept(vhost, "room") == [f"id{n}" for n in told["room"]]


@pytest_twisted.ensureDeferred
async def test_a_channel_that_closes_fails_everything_that_is_open_on_it(vhost):
    async with Opened(vhost) as channel:
        closed = []
        channel.on_closed = closed.append
        calls = [channel.publish("nowhere", "x", b"x", properties(f"id{n}")) for n in range(50)]
        outcomes = await DeferredList(calls, consumeErrors=True)
        assert {type(result.value) for _, result in outcomes} == {ChannelClosed}
        assert {result.value.code for _, result in outcomes} == {404}
        await until(lambda: closed)
        assert "no exchange 'nowhere'" in closed[0].text
        assert channel.error is closed[0]
        for late in (channel.publish("", "x", b"x", properties("late")), channel.limit(1), channel.consume("x", print)):
            with pytest.raises(ChannelClosed):
                await late
        channel.ack(1)
        channel.close()


@pytest_twisted.ensureDeferred
async def test_what_is_open_when_the_connection_goes_is_in_doubt(own_broker):
    opened = Opened(own_broker.vhost())
    channel = await opened.__aenter__()
    await channel.declare_queue("q")
    own_broker.freeze()
    asking = Deferred.fromCoroutine(channel.limit(1))
    calls = [channel.publish("", "q", b"x", properties("one")), opened.connection.channel(), asking]
    await deferToThread(own_broker.kill)
    for _, result in await DeferredList(calls, consumeErrors=True):
        assert isinstance(result.value, ChannelClosed)
        assert result.value.code == 0
    await opened.connection.end()


@pytest_twisted.ensureDeferred
async def test_a_close_of_ours_gives_back_what_was_not_acknowledged_in_order(vhost):
    async with Opened(vhost) as channel:
        closed = []
        channel.on_closed = closed.append
        await channel.declare_queue("q", {"x-queue-type": "quorum", "x-single-active-consumer": True})
        for n in range(100):
            await channel.publish("", "q", b"x" * n, properties(f"id{n}"))
        got = []
        await channel.limit(20)
        await channel.consume("q", got.append)
        await until(lambda: len(got) == 20)
        assert [(each.properties.message_id, len(each.body), each.routing_key, each.redelivered) for each in got] == [
            (f"id{n}", n, "q", False) for n in range(20)
        ]
        channel.ack(got[4].tag, multiple=True)
        channel.ack(got[6].tag)
        await until(lambda: len(got) == 26)
        channel.close()
        await until(lambda: channel.error is not None)
        assert closed == [], "it was not the broker"
    left = {f"id{n}" for n in range(100)} - {f"id{n}" for n in (0, 1, 2, 3, 4, 6)}
    again = []
    async with Opened(vhost) as channel:
        await channel.limit(200)
        await channel.consume("q", again.append)
        await until(lambda: len(again) == 94)
    assert {each.properties.message_id for each in again} == left
    assert [each.properties.message_id for each in again if each.redelivered] == [f"id{n}" for n in (5, *range(7, 26))]


@pytest_twisted.ensureDeferred
async def test_a_consumer_is_told_when_its_queue_is_deleted(vhost):
    async with Opened(vhost) as channel:
        cancelled = []
        for name in ("one", "other"):
            await channel.declare_queue(name)
            await channel.consume(name, print, cancelled=lambda name=name: cancelled.append(name))
        await channel.delete_queue("one")
        await until(lambda: cancelled)
        assert cancelled == ["one"]
        assert channel.error is None


@pytest_twisted.ensureDeferred
async def test_declarations_say_what_is_there_and_what_differs(vhost):
    async with Opened(vhost) as channel:
        await channel.declare_exchange("e", "topic")
        await channel.declare_queue("q", {"x-max-length": 5})
        await channel.bind_queue("q", "e", "a.#")
        await channel.publish("e", "a.b", b"x", properties("one"))
        assert (await channel.declare_queue("q", passive=True)).messages == 1
        await channel.declare_exchange("e", "topic", passive=True)
        with pytest.raises(ChannelClosed, match="406.*x-max-length"):
            await channel.declare_queue("q", {"x-max-length": 6})


@pytest_twisted.ensureDeferred
async def test_an_answer_that_nobody_waits_for_any_more_is_no_error(vhost):
    async with Opened(vhost) as channel:
        for call in (
            channel.publish("amq.fanout", "x", b"x", properties("one"), mandatory=False),
            Deferred.fromCoroutine(channel.limit(1)),
        ):
            call.cancel()
            with pytest.raises(CancelledError):
                await call
        assert (await channel.declare_queue("q")).messages == 0
        await channel.publish("", "q", b"x", properties("two"))
        assert channel.unconfirmed == 0


@pytest_twisted.ensureDeferred
async def test_properties_come_out_as_they_went_in(vhost):
    """So that a worker knows our own events by the first bytes; a message of many frames is in it, too."""
    opened = Opened(vhost)
    async with opened as channel:
        await channel.declare_queue("q", {"x-queue-type": "quorum"})
        came = []
        await channel.limit(10)
        await channel.consume("q", came.append)
        body = random.Random(1).randbytes(3 * opened.connection.frame_max + 7)
        await DeferredList(
            [channel.publish("", "q", body, EVENTS("one")), channel.publish("", "q", b"", EVENTS("two"))]
        )
        await until(lambda: len(came) == 2)
    assert [delivery.body for delivery in came] == [body, b""]
    assert all(EVENTS.made(delivery.properties) for delivery in came)
    assert [delivery.properties.message_id for delivery in came] == ["one", "two"]
