"""A foreign RabbitMQ, as a source and a sink of the kind `amqp` are configured with it, and the doctor's look at it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from towerbus.amqp.connection import Connection, connect, tls_options
from towerbus.amqp.errors import trouble
from towerbus.amqp.url import Broker, parse
from towerbus.doctor import findings
from towerbus.doctor.findings import DOCTOR, Finding
from towerbus.errors import ConfigError

See = Callable[[Connection, Broker], Awaitable[Sequence[Finding]]]


class Foreign(Broker, frozen=True):
    """A broker that is not the bus's: it has no prefix to be told of."""

    def __str__(self) -> str:
        return super().__str__().removesuffix(f" (prefix {self.prefix})")


def broker(url: str) -> Broker:
    """Understand a URL of the configuration.

    Raises:
        ConfigError: It is not right, or a certificate file can't be used.
    """
    try:
        made = parse(url)
        if made.tls:
            tls_options(made)
    except ConfigError as error:
        raise ConfigError(f"url: {error}") from error
    return Foreign(**msgspec.structs.asdict(made))


def check(url: str) -> None:
    """Check a URL, where a configuration is read.

    Raises:
        ValueError: It is not right, or a certificate file can't be used.
    """
    try:
        broker(url)
    except ConfigError as error:
        raise ValueError(str(error)) from error


async def looked_at(url: str, side: str, reactor: Any, see: See) -> Sequence[Finding]:
    """Look at a broker for the doctor.

    Args:
        url: Where.
        side: `source` or `sink`.
        reactor: Connects.
        see: Looks at what the bridge needs there.
    """
    where = broker(url)
    try:
        connection = await connect(where, DOCTOR, reactor)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        found = trouble(error, where)
        return [findings.error(side, found.text, "see that the broker runs and lets this user in")]
    try:
        return await see(connection, where)
    finally:
        await connection.end()
