"""Announces a web node to AWX's relays, as AWX's own heartbeat does: by PostgreSQL's NOTIFY, in AWX's database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.logger import Logger

from towerbus.postgres.session import DatabaseTrouble, Session

CHANNEL = "web_ws_heartbeat"
"""Where AWX's web nodes announce themselves (awx/main/management/commands/run_ws_heartbeat.py, 24.6.1)."""
FAREWELL = 1.0
"""Seconds for taking leave."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before the database is tried again."""
_log = Logger()


class Node(NamedTuple):
    """A web node.

    Attributes:
        hostname: Its name, which no other node has.
        ip: The address that relays dial; where it is empty, the name.
        channel: Where relays hear of it.
    """

    hostname: str
    ip: str
    channel: str = CHANNEL

    def says(self, action: str) -> str:
        """What it says of itself: that it is `online`, or `offline`."""
        said = {"hostname": self.hostname, "ip": self.ip or None, "action": action}
        return msgspec.json.encode(said).decode()


class Announcer:
    """Says that a node is online, again and again, and at the end that it is offline.

    Args:
        reactor: Tells the time.
        url: AWX's database.
        node: The node.
        every: Seconds between announcements.
        name: The bridge's.
        changed: Called when `trouble` may have changed.

    Attributes:
        trouble: Why the node is not announced; empty where it is.
    """

    def __init__(
        self, reactor: Any, url: str, node: Node, every: float, name: str, changed: Callable[[], None]
    ) -> None:
        self.trouble = ""
        self._reactor = reactor
        self._url = url
        self._node = node
        self._every = every
        self._name = name
        self._changed = changed

    async def run(self) -> None:
        """Announce it until this is cancelled; a database that can't be reached is tried again."""
        pause = FIRST_PAUSE
        while True:
            session = Session(self._reactor, self._url, f"towerbus-bridge {self._name}")
            try:
                await session.connect()
                pause = FIRST_PAUSE
                await self._beat(session)
            except DatabaseTrouble as trouble:
                _log.warn("relay_unannounced: {reason}", reason=str(trouble), bridge=self._name)
                self.trouble = f"it is not announced to AWX: {trouble}"
                self._changed()
            finally:
                await session.close()
            await deferLater(self._reactor, pause, lambda: None)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _beat(self, session: Session) -> None:
        try:
            while True:
                await session.run(partial(_notify, node=self._node, action="online"))
                self.trouble = ""
                self._changed()
                await deferLater(self._reactor, self._every, lambda: None)
        except CancelledError:
            with suppress(DatabaseTrouble, TimedOut):
                await session.run(partial(_notify, node=self._node, action="offline")).addTimeout(
                    FAREWELL, self._reactor
                )
            raise


def _notify(connection: Any, node: Node, action: str) -> None:
    connection.execute("SELECT pg_notify(%s, %s)", (node.channel, node.says(action)))
