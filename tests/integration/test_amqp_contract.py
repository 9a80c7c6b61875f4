"""The contract of every log, kept by RabbitMQ with intake, worker and log in this process."""

import pytest
import pytest_twisted
from contract.buses import MAX_BYTES, Bus
from contract.test_log import *  # noqa: F403
from support.wires import until
from twisted.internet import reactor

from towerbus.amqp.intake import AmqpIntake
from towerbus.amqp.log import AmqpLog
from towerbus.amqp.service import State
from towerbus.amqp.topology import Limits, Names
from towerbus.amqp.url import parse
from towerbus.amqp.worker.service import WorkerService
from towerbus.amqp.worker.session import Setup
from towerbus.worker.counters import Role


class AmqpBus(Bus):
    """RabbitMQ. What it keeps in memory is much less than what is in the stream."""

    durable = True
    keeps_age = False
    tail_bytes = 3000

    def __init__(self, directory, url):
        super().__init__(directory)
        self.broker = parse(url)

    async def start(self):
        names, limits = Names(self.broker.prefix), Limits(log_max_bytes=MAX_BYTES, log_segment_bytes=MAX_BYTES // 10)
        self.worker = WorkerService(self.broker, Setup(names, limits), reactor, hopeless=pytest.fail)
        self.log = AmqpLog(self.broker, reactor, tail_bytes=self.tail_bytes, refused=pytest.fail)
        self.intake = AmqpIntake(self.broker, reactor, refused=pytest.fail)
        self.log.follow(self)
        for service in (self.worker, self.log, self.intake):
            service.startService()
        await until(lambda: self.intake.bus.state is State.ESTABLISHED)
        # What follows is of the worker's term.
        await until(lambda: self.worker.counters.role is Role.ACTIVE)
        await until(lambda: self.log.known and self.log.tail.end.term == self.worker.counters.term)

    async def stop(self):
        for service in (self.intake, self.log, self.worker):
            await service.stopService()


class AmqpBusInMemory(AmqpBus):
    """RabbitMQ, with all that is in the stream in memory as well."""

    tail_bytes = MAX_BYTES


@pytest_twisted.async_yield_fixture(params=[AmqpBus, AmqpBusInMemory], ids=lambda bus: bus.__name__)
async def bus(request, tmp_path, vhost):
    made = request.param(tmp_path, vhost)
    await made.start()
    yield made
    await made.stop()


def test_producers_wait_for_a_follower_that_has_too_much_in_hand():
    """They wait for the intake only: it is bounded by itself, and other servers have other followers."""
