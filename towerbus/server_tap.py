"""`twistd towerbus-server`: options and service."""

from __future__ import annotations

from twisted.application.service import IService

from towerbus.options import SERVER
from towerbus.tap import CommandOptions, made


class Options(CommandOptions):
    """Serves clients: WebSocket and HTTP, on a bus in RabbitMQ. Run one for each core, behind one address."""

    command = SERVER
    longdesc = (
        "Needs a RabbitMQ (--bus, or better TOWERBUS_BUS for its password), one or two twistd towerbus-worker on the "
        "same, and a way to judge credentials (--auth). The WebSocket opens when the log was found; /readyz on the "
        "--http listener, which is there from the start, tells what is still missing. A broker that can't be reached "
        "is waited for. Every option may also stand in a TOML file (--config) or in the "
        "environment (TOWERBUS_LISTEN=...); the command line wins, then the environment."
    )


def makeService(given: Options) -> IService:
    """Make the service that twistd runs."""
    # pika imports the global reactor.
    from towerbus.server import server

    return made(server, given)
