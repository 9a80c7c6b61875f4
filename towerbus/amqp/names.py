"""The names and the arguments of the objects in the broker. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

INTAKE, LOG, DEAD = "intake", "log", "dead"
"""Routing keys of the direct exchange."""
PERSISTENT = 2
"""The delivery mode of a message that is to outlive the broker."""
OFFSET = "x-stream-offset"
"""The header that a stream's deliveries have; also the argument that says where a consumer begins."""


class Names(NamedTuple):
    """The names of all objects of one installation.

    Attributes:
        prefix: Before each of them.
    """

    prefix: str

    @property
    def exchange(self) -> str:
        """The topic exchange, for any AMQP producer."""
        return self.prefix

    @property
    def direct(self) -> str:
        """The direct exchange, for ours."""
        return f"{self.prefix}.direct"

    @property
    def unrouted(self) -> str:
        """The exchange that gets what the topic exchange could not route."""
        return f"{self.prefix}.unrouted"

    @property
    def intake(self) -> str:
        """The queue of what is to be ordered."""
        return f"{self.prefix}.{INTAKE}"

    @property
    def log(self) -> str:
        """The stream."""
        return f"{self.prefix}.{LOG}"

    @property
    def dead(self) -> str:
        """The queue of what could not be taken."""
        return f"{self.prefix}.{DEAD}"


class Limits(NamedTuple):
    """What the objects may hold.

    Attributes:
        log_max_bytes: Bytes in the log, at the most, by whole segments.
        log_max_age: Seconds that the log keeps a record, by whole segments.
        log_segment_bytes: Bytes in a segment of the log.
        intake_max_bytes: Bytes in the intake, at the most: beyond that producers are refused.
        dead_max_messages: Messages in the dead queue, at the most: beyond that the oldest go.
    """

    log_max_bytes: int = 1024**3
    log_max_age: float = 24 * 3600.0
    log_segment_bytes: int = 16 * 1024**2
    intake_max_bytes: int = 256 * 1024**2
    dead_max_messages: int = 100_000

    @property
    def log(self) -> dict[str, Any]:
        """The arguments of the stream."""
        return {
            "x-queue-type": "stream",
            "x-max-length-bytes": self.log_max_bytes,
            "x-max-age": f"{max(1, round(self.log_max_age))}s",
            "x-stream-max-segment-size-bytes": self.log_segment_bytes,
        }

    @property
    def intake(self) -> dict[str, Any]:
        """The arguments of the intake."""
        return {
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-overflow": "reject-publish",
            "x-max-length-bytes": self.intake_max_bytes,
            # RabbitMQ 4 would drop what twenty dead workers had in hand.
            "x-delivery-limit": 1_000_000,
        }

    @property
    def dead(self) -> dict[str, Any]:
        """The arguments of the dead queue."""
        return {"x-queue-type": "quorum", "x-overflow": "drop-head", "x-max-length": self.dead_max_messages}
