"""Coming back without a seam, where the log is a stream in RabbitMQ and its tail is small."""

import pytest
import pytest_twisted
from support.log_writer import LogWriter
from support.wanderers import wander
from support.wires import Server, until
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from towerbus.amqp.log import AmqpLog
from towerbus.amqp.url import parse


class WrittenLog(AmqpLog):
    """The log, and a writer beside it; an event is emitted when this server has read it."""

    writer = None

    async def emit(self, events):
        await deferToThread(self.writer.write, *events)
        await until(lambda: self.events >= self.written + len(events))
        self.written += len(events)

    written = 0


@pytest.mark.seconds(120)
@pytest.mark.parametrize("seed", [1, 2])
@pytest_twisted.ensureDeferred
async def test_everybody_gets_every_event_once_and_in_order_whatever_they_do(vhost, seed):
    with LogWriter(vhost) as writer:
        writer.declare().fence()
        log = WrittenLog(parse(vhost), reactor, tail_bytes=3000)
        log.writer = writer
        log.startService()
        await log.when_known()
        server = await Server(log=log, outbox=64 * 1024).start()
        await wander(server, seed, 15, 4)
        assert server.catchup.counts.readings > 0
        await server.stop()
        await log.stopService()
