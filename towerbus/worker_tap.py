"""`twistd towerbus-worker`: options and service."""

from __future__ import annotations

from twisted.application.service import IService

from towerbus.options import WORKER
from towerbus.tap import CommandOptions, made


class Options(CommandOptions):
    """Orders events: takes what producers put into RabbitMQ, checks it, and writes the log that servers read."""

    command = WORKER
    longdesc = (
        "Needs a RabbitMQ (--bus, or better TOWERBUS_BUS for its password), and makes in it what it needs; it listens "
        "on no port. Start two of them, on two machines if there are two: one is active, the other stands by and takes "
        "over within a second, and nothing is lost or repeated. Messages that can't be taken are kept in the queue "
        "towerbus.dead, each with the reason. A broker that can't be reached is waited for. Every option may also "
        "stand in a TOML file (--config) or in the environment (TOWERBUS_RECORD_PAUSE=...); the command line wins, "
        "then the environment."
    )


def makeService(given: Options) -> IService:
    """Make the service that twistd runs."""
    # pika imports the global reactor.
    from towerbus.amqp.worker.service import worker

    return made(worker, given)
