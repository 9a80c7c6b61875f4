"""Heartbeats: gives up a broker that is silent for two heartbeats and a half."""

from __future__ import annotations

from typing import Any

from pika.exceptions import AMQPHeartbeatTimeout
from pika.heartbeat import HeartbeatChecker

LOOKS = 5
"""Looks, half a heartbeat apart, that must have found nothing new. A broker sends something each half of one."""


class Silence(HeartbeatChecker):  # type: ignore[misc]
    """pika's own sends heartbeats, but looks for the broker's only each `heartbeat + 5` seconds.

    So a dead broker goes unnoticed for up to twice as long; and a process that was stopped for a while looks before it
    reads, and gives up a broker that is well. Looking more often, and counting, does neither.
    """

    @classmethod
    def watch(cls, connection: Any) -> None:
        """Have a connection of pika's, which is not open yet, use this."""
        connection._create_heartbeat_checker = lambda: cls(connection, connection.params.heartbeat)  # noqa: SLF001

    @property
    def connection_is_idle(self) -> bool:
        """Whether the broker is given up."""
        return bool(self._idle_byte_intervals >= LOOKS)

    def _start_check_timer(self) -> None:
        self._check_interval = self._timeout / 2
        super()._start_check_timer()

    def _close_connection(self) -> None:
        seconds = LOOKS * self._timeout / 2
        self._connection._terminate_stream(AMQPHeartbeatTimeout(f"no heartbeat for {seconds:g} s"))  # noqa: SLF001
