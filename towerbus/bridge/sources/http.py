"""The source `http`: `POST /emit` on TCP or a Unix socket, for producers on the same machine.

What is answered with 202 is on this machine's disk. From there it goes to the bus, in order, as soon as the bus takes
it: producers do not notice that the bus is away. A spool that is full refuses with 503.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from zope.interface import implementer

from towerbus import web
from towerbus.access import Grants, Identity
from towerbus.auth.chain import authenticator
from towerbus.bridge.interface import IFeed, ISource, Measure, Surroundings
from towerbus.bridge.message import Message
from towerbus.bridge.spool import Spool, open_spool
from towerbus.bridge.spool_file import Spooled
from towerbus.doctor import findings
from towerbus.doctor.findings import Finding
from towerbus.endpoints import endpoint
from towerbus.errors import ConfigError, TowerbusError
from towerbus.intake.http import EmitResource

BATCH, BATCH_BYTES = 1024, 4 * 1024 * 1024
"""What is read from the spool at once, at the most."""
ANYONE = Identity("local", "whoever may open the socket", Grants(emit=("*",)))
"""Who posts without a token, where no `auth` is given."""

_log = Logger()


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[bridge.source]` of this kind.

    Attributes:
        listen: A Twisted endpoint: `unix:/run/towerbus/emit.sock:mode=660` or `tcp:8054:interface=127.0.0.1`.
        auth: Who may post, as `--auth` has it. Without it, whoever may open the Unix socket; TCP needs it.
        spool_bytes: Bytes of events that may wait for the bus, at the most.
    """

    listen: str
    auth: tuple[str, ...] = ()
    spool_bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.spool_bytes < 1024 * 1024:
            raise ValueError(f"spool_bytes: got {self.spool_bytes}, wanted 1048576 or more")
        if not self.auth and not self.listen.startswith("unix:"):
            raise ValueError(
                f"auth: none is given, and listen is {self.listen!r}: anybody on this machine could emit; wanted is "
                "auth, or a Unix socket whose permissions decide"
            )


def make(options: Options, surroundings: Surroundings) -> HttpSource:
    """Make it.

    Raises:
        ConfigError: The endpoint or a plugin of `auth` is not right, or there is no directory for the spool.
    """
    directory = surroundings.needed_directory("the spool is kept")
    try:
        listening = endpoint(surroundings.reactor, options.listen)
    except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
        raise ConfigError(
            f"listen: {options.listen!r} is no endpoint ({error}); wanted is unix:/run/towerbus/emit.sock:mode=660 or "
            "tcp:8054:interface=127.0.0.1"
        ) from error
    judge = authenticator(options.auth, surroundings.reactor)
    return HttpSource(options, surroundings, directory, listening, judge)


@implementer(ISource)
class HttpSource:
    """Takes posts, spools them, and forwards the spool.

    Args:
        options: The configuration.
        surroundings: The bridge's.
        directory: Where the spool is.
        endpoint: Where it listens.
        judge: Knows the producers' tokens.
    """

    def __init__(
        self, options: Options, surroundings: Surroundings, directory: Path, endpoint: Any, judge: Any
    ) -> None:
        self._options = options
        self._around = surroundings
        self._path = directory / "spool.db"
        self._endpoint = endpoint
        self._judge = judge
        self._spool: Spool | None = None

    async def run(self, feed: IFeed) -> None:
        """Open the spool, listen, and forward until it is cancelled or the spool fails."""
        around, options = self._around, self._options
        spool = await open_spool(self._path, around.reactor, f"spool-{around.name}", options.spool_bytes)
        self._spool, spool.on_trouble = spool, feed.trouble
        port = None
        try:
            port = await self._listen(spool)
            feed.established()
            while True:
                taken = await spool.first(BATCH, BATCH_BYTES)
                await feed.forward([_message(each) for each in taken])
                await spool.remove(taken)
        finally:
            self._spool, spool.on_trouble = None, _nothing
            if port is not None:
                await maybeDeferred(port.stopListening)
            await spool.close()
            await self._judge.close()

    async def _listen(self, spool: Spool) -> Any:
        resource = EmitResource(
            spool,
            self._judge,
            self._around.reactor,
            max_payload=self._around.max_payload,
            anyone=None if self._options.auth else ANYONE,
        )
        try:
            port = await self._endpoint.listen(web.site({b"emit": resource}, self._around.reactor))
        except CannotListenError as error:
            raise TowerbusError(f"can't listen on {self._options.listen}: {_why(error)}") from error
        _log.info("source_listening: {name} at {address}", name=self._around.name, address=port.getHost())
        return port

    def measures(self) -> Sequence[Measure]:
        """How much is spooled."""
        spool = self._spool
        held, size, refused = (spool.events, spool.bytes, spool.refused) if spool is not None else (0, 0, 0)
        return [
            Measure("spool_events", "Events that wait on the disk for the bus", held),
            Measure("spool_bytes", "Bytes of events that wait on the disk for the bus", size),
            Measure("spool_limit_bytes", "Bytes from which on the spool is full", self._options.spool_bytes),
            Measure("spool_refused_events", "Events that found the spool full, since it was opened", refused),
        ]


def _why(error: CannotListenError) -> str:
    """Why, in words for a person: of a Unix socket Twisted only says that it got no lock."""
    text = str(error.socketError)
    return "another process listens there" if text == "Cannot acquire lock" else text


def _message(spooled: Spooled) -> Message:
    event = spooled.event
    group, type_ = event.topic
    return Message(
        event.payload,
        id=event.id,
        group=group,
        type=type_,
        time=event.time,
        content_type="application/json",
        place="POST /emit",
    )


async def look(options: Options, surroundings: Surroundings) -> list[Finding]:
    """Look whether the spool's directory can be written, and the socket's."""
    found = []
    directory = surroundings.needed_directory("the spool is kept")
    parent = next((path for path in (directory, *directory.parents) if path.exists()), Path("/"))
    if os.access(parent, os.W_OK):
        found.append(findings.ok("source", f"the spool {directory} can be written"))
    else:
        found.append(findings.error("source", f"{parent} can't be written", "give its user the permission"))
    kind, _, rest = options.listen.partition(":")
    if kind == "unix":
        place = Path(rest.partition(":")[0]).parent
        if not os.access(place, os.W_OK):
            found.append(
                findings.error("source", f"the socket's directory {place} can't be written", "make it, for this user")
            )
    return found


def _nothing(_: str) -> None:
    """The life is over."""
