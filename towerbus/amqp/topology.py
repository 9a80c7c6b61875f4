"""The objects in the broker, and how they are declared; names.py has their names and arguments.

    topic exchange PREFIX ------- # -----> PREFIX.intake (quorum queue, one active consumer) ----> worker
         `- what nothing takes -> PREFIX.unrouted (fanout exchange) ----> PREFIX.dead (quorum queue)
    direct exchange PREFIX.direct -- intake, log, dead --> the queue of that name
    PREFIX.log (stream) ----> servers

Foreign producers publish to the topic exchange, with the routing key `group.type`. Ours go through the direct exchange,
mandatory: where a queue is missing, the message comes back instead of being kept aside.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from towerbus.amqp.channel import Channel
from towerbus.amqp.connection import Connection
from towerbus.amqp.errors import NOT_FOUND, PRECONDITION_FAILED, ChannelClosed, Mismatch
from towerbus.amqp.names import DEAD, INTAKE, LOG, Limits, Names
from towerbus.config import Settings

__all__ = [
    "DEAD",
    "INTAKE",
    "LOG",
    "Limits",
    "Made",
    "Names",
    "check_intake",
    "declare",
    "exists",
    "limits",
    "mismatch",
]

_UNEQUAL = re.compile(r"inequivalent arg '(\S+)' for (\S+) '(.+?)' in vhost .*?received (.+?) but current is (.+)$")
_VALUE = re.compile(r"the value ('.*') of type '\w+'")
_OPTIONS = {
    (LOG, "x-max-age"): "--log-max-age",
    (LOG, "x-max-length-bytes"): "--log-max-bytes",
    (LOG, "x-stream-max-segment-size-bytes"): "--log-segment-bytes",
    (INTAKE, "x-max-length-bytes"): "--intake-max-bytes",
}


def limits(settings: Settings) -> Limits:
    """What the configuration says that the objects may hold."""
    default = Limits()
    return default._replace(
        log_max_bytes=settings.log_max_bytes or default.log_max_bytes,
        log_max_age=settings.log_max_age or default.log_max_age,
        log_segment_bytes=settings.log_segment_bytes,
        intake_max_bytes=settings.intake_max_bytes,
    )


class Made(NamedTuple):
    """What `declare` had to make.

    Attributes:
        queues: Whether a quorum queue is new: killed within a second of its first declare, it never comes back.
        log: Whether the stream is new.
    """

    queues: bool
    log: bool


async def declare(connection: Connection, channel: Channel, names: Names, limits: Limits) -> Made:
    """Make the objects that are missing. Those that are there stay as they are.

    Args:
        connection: Where the look at what is there is taken.
        channel: Where they are declared.
        names: Their names.
        limits: Their arguments.

    Raises:
        Mismatch: One of them is there and is different.
    """
    queues = not (await exists(connection, names.intake) and await exists(connection, names.dead))
    log = not await exists(connection, names.log)
    try:
        await channel.declare_exchange(names.unrouted, "fanout")
        await channel.declare_exchange(names.exchange, "topic", {"alternate-exchange": names.unrouted})
        await channel.declare_exchange(names.direct, "direct")
        for queue, key, arguments in (
            (names.dead, DEAD, limits.dead),
            (names.intake, INTAKE, limits.intake),
            (names.log, LOG, limits.log),
        ):
            await channel.declare_queue(queue, arguments)
            await channel.bind_queue(queue, names.direct, key)
        await channel.bind_queue(names.dead, names.unrouted, "")
        await channel.bind_queue(names.intake, names.exchange, "#")
    except ChannelClosed as error:
        raise mismatch(error) or error from error
    return Made(queues, log)


async def check_intake(channel: Channel, names: Names) -> None:
    """See that what is published to the intake gets there. Asking needs no permission in RabbitMQ.

    Raises:
        ChannelClosed: It does not; where nothing is there yet, `errors.trouble` says who makes it.
    """
    await channel.declare_exchange(names.direct, "direct", passive=True)
    await channel.declare_queue(names.intake, passive=True)


async def exists(connection: Connection, queue: str) -> bool:
    """Whether a queue is there.

    Raises:
        ChannelClosed: Nobody can say: its node is down, or we may not ask.
    """
    channel = await connection.channel(vital=False)
    try:
        await channel.declare_queue(queue, passive=True)
    except ChannelClosed as error:
        if error.code == NOT_FOUND and "no queue" in error.text:
            return False
        raise
    channel.close()
    return True


def mismatch(error: ChannelClosed) -> Mismatch | None:
    """What the broker's words say of an object that is different; None where they are about something else."""
    if error.code != PRECONDITION_FAILED:
        return None
    found = _UNEQUAL.search(error.text)
    if found is None:
        return Mismatch(
            f"an object is of another kind than it should be: {error.text}", "delete it, or use another prefix"
        )
    key, kind, name, *values = found.groups()
    wanted, has = (_VALUE.sub(r"\1", value) for value in values)
    # What was not made by a worker has nothing that an option could be set to.
    option = _OPTIONS.get((name.rpartition(".")[2], key)) if has != "none" else None
    mend = f"set {option} to what it has, or delete" if option else "delete"
    return Mismatch(
        f"{kind} {name}: {key} is {has}, wanted is {wanted}",
        f"{mend} the {kind} with what it holds (a worker makes it anew), or use another prefix",
    )
