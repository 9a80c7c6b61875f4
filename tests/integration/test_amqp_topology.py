"""The objects in the broker: what is missing is made, what is different is named with the mend."""

from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from pika import BasicProperties
from support import intakes
from support.intakes import taken
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from towerbus.amqp.connection import connect
from towerbus.amqp.errors import ChannelClosed, Mismatch, trouble
from towerbus.amqp.topology import Limits, Made, Names, check_intake, declare, exists, mismatch
from towerbus.amqp.url import parse

NAMES = Names("towerbus")


@asynccontextmanager
async def opened(url):
    connection = await connect(parse(url), "test", reactor)
    try:
        yield connection, await connection.channel(vital=False)
    finally:
        await connection.end()


async def declared(url, limits=Limits(), names=NAMES):  # noqa: B008 - it is a constant
    async with opened(url) as (connection, channel):
        return await declare(connection, channel, names, limits)


@pytest_twisted.ensureDeferred
async def test_what_is_missing_is_made_once(vhost, broker):
    assert await declared(vhost) == Made(queues=True, log=True)
    found = broker.queues(vhost)
    assert {name: queue["type"].removeprefix("rabbit_").removesuffix("_queue") for name, queue in found.items()} == {
        "towerbus.intake": "quorum",
        "towerbus.dead": "quorum",
        "towerbus.log": "stream",
    }
    assert found["towerbus.intake"]["arguments"]["x-overflow"] == "reject-publish"
    assert await declared(vhost) == Made(queues=False, log=False)
    with intakes.channel(vhost) as channel:
        channel.queue_delete("towerbus.log")
    assert await declared(vhost) == Made(queues=False, log=True)
    assert await declared(vhost, names=Names("other")) == Made(queues=True, log=True)
    assert len(broker.queues(vhost)) == 6


@pytest_twisted.ensureDeferred
async def test_what_is_published_gets_where_it_should(vhost):
    await declared(vhost)

    def publish():
        with intakes.channel(vhost) as channel:
            channel.confirm_delivery()
            channel.basic_publish("towerbus", "jobs.x", b'{"n":1}', BasicProperties(message_id="one"))
            channel.queue_unbind("towerbus.intake", "towerbus", "#")
            channel.basic_publish("towerbus", "jobs.x", b'{"n":2}', BasicProperties(message_id="two"))
            return channel.basic_get("towerbus.dead", auto_ack=True)[1].message_id

    assert await deferToThread(publish) == "two", "what nothing takes is kept"
    assert [message.id for message in await deferToThread(taken, vhost)] == ["one"]


# What stands in the way, and what an operator is told: the object, what it has, what is wanted, and the mend.
STRANGERS = {
    "towerbus.unrouted": lambda channel: channel.exchange_declare("towerbus.unrouted", "topic", durable=True),
    "towerbus": lambda channel: channel.exchange_declare("towerbus", "direct", durable=True),
    "towerbus.direct": lambda channel: channel.exchange_declare("towerbus.direct", "topic", durable=True),
    "towerbus without an alternate": lambda channel: channel.exchange_declare("towerbus", "topic", durable=True),
    "towerbus that is not durable": lambda channel: channel.exchange_declare("towerbus", "topic"),
    "towerbus.intake": lambda channel: channel.queue_declare("towerbus.intake", durable=True),
    "towerbus.dead": lambda channel: channel.queue_declare("towerbus.dead", durable=True),
    "towerbus.log": lambda channel: channel.queue_declare("towerbus.log", durable=True),
    "towerbus.dead that is classic": lambda channel: channel.queue_declare(
        "towerbus.dead", durable=True, arguments=Limits().dead | {"x-queue-type": "classic"}
    ),
}
WORDS = {
    "towerbus.unrouted": ("exchange towerbus.unrouted", "'topic'", "'fanout'"),
    "towerbus": ("exchange towerbus:", "'direct'", "'topic'"),
    "towerbus.direct": ("exchange towerbus.direct", "'topic'", "'direct'"),
    "towerbus without an alternate": ("exchange towerbus:", "alternate-exchange", "towerbus.unrouted"),
    "towerbus that is not durable": ("exchange towerbus:", "durable", "'false'", "'true'"),
    "towerbus.intake": ("queue towerbus.intake: x-max-length-bytes is none, wanted is '268435456': delete",),
    "towerbus.dead": ("queue towerbus.dead: x-max-length is none, wanted is '100000': delete",),
    "towerbus.log": ("queue towerbus.log: x-max-length-bytes is none, wanted is '1073741824': delete",),
    "towerbus.dead that is classic": ("queue towerbus.dead: x-queue-type is 'classic', wanted is 'quorum': delete",),
}


@pytest.mark.parametrize("which", STRANGERS)
@pytest_twisted.ensureDeferred
async def test_an_object_of_another_kind_is_named(vhost, which):
    def make():
        with intakes.channel(vhost) as channel:
            STRANGERS[which](channel)

    await deferToThread(make)
    with pytest.raises(Mismatch) as caught:
        await declared(vhost)
    found = trouble(caught.value, parse(vhost))
    assert found.refused
    for word in (*WORDS[which], "another prefix", "delete"):
        assert word in found.text, found.text
    assert "  " not in found.text


@pytest.mark.parametrize(
    ("limits", "option", "name"),
    [
        (Limits(log_max_bytes=10**6), "--log-max-bytes", "towerbus.log"),
        (Limits(log_max_age=60), "--log-max-age", "towerbus.log"),
        (Limits(log_segment_bytes=10**6), "--log-segment-bytes", "towerbus.log"),
        (Limits(intake_max_bytes=10**6), "--intake-max-bytes", "towerbus.intake"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_another_limit_is_named_with_the_option_that_mends_it(vhost, limits, option, name):
    await declared(vhost)
    with pytest.raises(Mismatch) as caught:
        await declared(vhost, limits)
    text = str(caught.value)
    assert f"set {option} to what it has" in text
    assert name in text
    assert text.count("--") == 1, "only the option that it is"


@pytest_twisted.ensureDeferred
async def test_the_dead_queues_limit_is_named_without_an_option(vhost):
    await declared(vhost)
    with pytest.raises(Mismatch, match=r"towerbus\.dead: x-max-length is .100000., wanted is .7.: delete"):
        await declared(vhost, Limits(dead_max_messages=7))


@pytest_twisted.ensureDeferred
async def test_whether_a_queue_is_there(vhost):
    async with opened(vhost) as (connection, _):
        assert not await exists(connection, "towerbus.intake")
        await deferToThread(intakes.declare_now, vhost)
        assert await exists(connection, "towerbus.intake")
        assert connection.reason is None


@pytest_twisted.ensureDeferred
async def test_the_intake_is_checked_with_words_for_who_makes_it(vhost):
    async with opened(vhost) as (_, channel):
        with pytest.raises(ChannelClosed) as caught:
            await check_intake(channel, NAMES)
    assert "towerbus-worker" in trouble(caught.value, parse(vhost)).text
    await declared(vhost)
    async with opened(vhost) as (connection, channel):
        await check_intake(channel, NAMES)
        with intakes.channel(vhost) as other:
            other.queue_delete("towerbus.intake")
        with pytest.raises(ChannelClosed) as caught:
            await check_intake(await connection.channel(vital=False), NAMES)
    assert "towerbus-worker" in trouble(caught.value, parse(vhost)).text


@pytest_twisted.ensureDeferred
async def test_without_permission_it_says_whose_and_which(vhost, broker):
    name = vhost.rpartition("/")[2]
    broker.api("PUT", "/api/users/reader", {"password": "pw", "tags": ""})
    broker.api("PUT", f"/api/permissions/{name}/reader", {"configure": "^$", "write": "^$", "read": ".*"})
    url = vhost.replace("tb:tb@", "reader:pw@")
    with pytest.raises(ChannelClosed) as caught:
        await declared(url)
    found = trouble(caught.value, parse(url))
    assert found.refused
    assert "'reader'" in found.text
    assert "towerbus.unrouted" in found.text
    broker.api("DELETE", "/api/users/reader")


def test_other_words_of_the_broker_are_no_mismatch():
    assert mismatch(ChannelClosed(404, "NOT_FOUND - no queue")) is None
    assert "another kind" in str(mismatch(ChannelClosed(406, "PRECONDITION_FAILED - in words of its own")))
