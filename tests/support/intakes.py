"""What stands in an intake, read as a worker would, and the objects that a worker would declare."""

from __future__ import annotations

from contextlib import contextmanager

import pika
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from towerbus.amqp.url import parse
from towerbus.event import event as make_event
from towerbus.intake.messages import PACKED, read


async def declare(url):
    """Declare the objects of an installation, as a worker does."""
    from towerbus.amqp.connection import connect
    from towerbus.amqp.topology import Limits, Names
    from towerbus.amqp.topology import declare as declare_all

    broker = parse(url)
    connection = await connect(broker, "test", reactor)
    try:
        await declare_all(connection, await connection.channel(), Names(broker.prefix), Limits())
    finally:
        await connection.end()


def declare_now(url, **limits):
    """The same, with plain pika, for tests without a reactor."""
    from towerbus.amqp.topology import DEAD, INTAKE, Limits, Names

    names, limits = Names(parse(url).prefix), Limits(**limits)
    with pika.BlockingConnection(pika.URLParameters(url.partition("?")[0])) as connection:
        channel = connection.channel()
        channel.exchange_declare(names.unrouted, "fanout", durable=True)
        channel.exchange_declare(
            names.exchange, "topic", durable=True, arguments={"alternate-exchange": names.unrouted}
        )
        channel.exchange_declare(names.direct, "direct", durable=True)
        for queue, key, arguments in ((names.intake, INTAKE, limits.intake), (names.dead, DEAD, limits.dead)):
            channel.queue_declare(queue, durable=True, arguments=arguments)
            channel.queue_bind(queue, names.direct, key)
        channel.queue_bind(names.intake, names.exchange, "#")
        channel.queue_bind(names.dead, names.unrouted, "")


class Message:
    """A message of the intake.

    Attributes:
        events: What it holds.
        id: Its message_id.
        packed: Whether it is one of ours.
        properties: All that was with it.
    """

    def __init__(self, method, properties, body):
        self.properties = properties
        self.id = properties.message_id
        self.packed = properties.content_type == PACKED
        self.events = read(
            body,
            content_type=properties.content_type,
            routing_key=method.routing_key,
            message_id=self.id,
            timestamp=properties.timestamp,
        )


CHANNELS = 'length([1 || [{vhost, <<"VHOST">>}] <- rabbit_channel:info_all([vhost])])'
CONNECTIONS = """
[Name || Pid <- rabbit_networking:connections(),
         [{name, Name}, {vhost, Host}, {client_properties, Given}] <-
             [catch rabbit_networking:connection_info(Pid, [name, vhost, client_properties])],
         Host =:= <<"VHOST">>, lists:member({<<"product">>, longstr, <<"towerbus">>}, Given)]
"""


def connections(broker, url):
    """Our connections to a virtual host, as the broker sees them now: for each its two addresses."""
    return broker._asked(CONNECTIONS.replace("VHOST", url.rpartition("/")[2].partition("?")[0]))


def channels(broker, url):
    """How many channels are open in a virtual host, as the broker sees them now."""
    return broker._asked(CHANNELS.replace("VHOST", url.rpartition("/")[2].partition("?")[0]))


END = "application/vnd.test.end"


@contextmanager
def channel(url):
    """A channel of plain pika."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()


def taken(url, prefix="towerbus"):
    """Take out all that is confirmed to be in the intake, in order, and read it as a worker does."""
    return [Message(*raw) for raw in taken_raw(url, prefix)]


def taken_raw(url, prefix="towerbus"):
    """Take out all that is confirmed to be in the intake, as method, properties and body."""
    messages = []
    queue = f"{prefix}.intake"
    with channel(url) as open_channel:
        open_channel.confirm_delivery()
        # What is behind the mark stays in its place: it is not delivered, and put back.
        open_channel.basic_qos(prefetch_count=1)
        marked = _mark(open_channel, queue)
        for method, properties, body in open_channel.consume(queue):
            open_channel.basic_ack(method.delivery_tag)
            if properties.content_type == END:
                return messages
            messages.append((method, properties, body))
            # A full intake takes the mark as little as anything else.
            marked = marked or _mark(open_channel, queue)
    raise AssertionError("the consumer was cancelled")


def _mark(open_channel, queue):
    try:
        open_channel.basic_publish("", queue, b"", pika.BasicProperties(content_type=END), mandatory=True)
    except pika.exceptions.NackError:
        return False
    return True


async def messages_in(url):
    """The same, while the reactor goes on."""
    return await deferToThread(taken, url)


def numbers(messages):
    """The numbers of the events in some messages."""
    return [number(event) for message in messages for event in message.events]


def number(event):
    """The number in an event of `made`."""
    return int(event.payload[5:].partition(b",")[0])


def made(number, size=0, **given):
    """An event with a number in it."""
    return make_event("jobs", "x", b'{"n":%d,"x":"%s"}' % (number, b"x" * size), **given)


def unrepeated(found):
    """What a worker makes of it: the events in order, without those whose id was there before."""
    events = {}
    for message in found:
        for event in message.events:
            events.setdefault(event.id, event)
    return list(events.values())
