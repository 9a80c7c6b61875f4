"""`twistd towerbus-bridge`: options and service."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from towerbus.bridge.configuration import BridgeOptions, read
from towerbus.config import Settings
from towerbus.errors import ConfigError
from towerbus.options import BRIDGE
from towerbus.tap import CommandOptions, made


class Options(CommandOptions):
    """Carries messages of foreign systems onto the bus, and events of the bus to foreign systems."""

    command = BRIDGE
    longdesc = (
        "Needs a RabbitMQ (--bus, or better TOWERBUS_BUS for its password) with a twistd towerbus-worker on it, and a "
        "TOML file (--config) with a table [[bridge]] for each bridge; docs/bridges.md has them. Each is supervised "
        "by itself: one that fails is tried again and leaves the others alone; /readyz on the --bridge-http listener "
        "names it with the reason. A source's messages are acknowledged only when the bus has confirmed them. Every "
        "other option may also stand in the file or in the environment (TOWERBUS_BRIDGE_STATE=...); the command line "
        "wins, then the environment."
    )

    def postOptions(self) -> None:
        """Check everything before anything starts."""
        super().postOptions()
        try:
            self.bridges: list[BridgeOptions] = _bridges(self.settings)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from error


def _bridges(settings: Settings) -> list[BridgeOptions]:
    if not settings.file:
        raise ConfigError("--config: none is given; wanted is a TOML file with a table [[bridge]] for each bridge")
    if settings.bridge is None or settings.bridge == []:
        raise ConfigError(f"{settings.file}: bridge: there is none; wanted is a table [[bridge]] for each bridge")
    return read(settings.bridge, settings.file, os.environ)


def makeService(given: Options) -> IService:
    """Make the service that twistd runs."""
    # pika imports the global reactor.
    from towerbus.bridge.service import bridges

    def make(settings: Settings, reactor: Any) -> IService:
        return bridges(settings, reactor, given.bridges)

    return made(make, given)
