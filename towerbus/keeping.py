"""What keeps a process of ours running well: how it stops, what it reads again, and what its service manager hears."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from towerbus.config import Settings
from towerbus.hub import Hub, reconsidered
from towerbus.listening import Listener
from towerbus.ops.drain import STOPPING, Drain
from towerbus.ops.notify import Condition, Notify, Supervised
from towerbus.ops.reload import Part, Reload

_log = Logger()


class Phases(MultiService):
    """Starts its parts in order, and stops them one after the other from the last to the first.

    A service of Twisted's stops all of its parts at once: the log would be gone before the clients are.
    """

    def stopService(self) -> Deferred[None]:
        """Stop them; one that fails keeps none of the others from it."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for part in reversed(list(self)):
            try:
                await maybeDeferred(part.stopService)
            except Exception:  # noqa: BLE001 - it is logged, and the others have to end as well
                _log.failure("stop_failed")


class Keeping:
    """What keeps a process with clients running well.

    Args:
        drain: Lets go of them at the end.
        reload: Reads again what may change.
        supervised: Tells the service manager.
        broken: What is not in order, by hop.

    Attributes:
        drain: As it was given.
        reload: As it was given.
        listeners: Those of which certificates are read again.
    """

    def __init__(
        self, drain: Drain, reload: Reload, supervised: Supervised, broken: Callable[[], Mapping[str, str]]
    ) -> None:
        self.drain, self.reload = drain, reload
        self.listeners: list[Listener] = []
        self._supervised = supervised
        self._broken = broken

    def broken(self) -> Mapping[str, str]:
        """What keeps clients from being served, by hop: the reasons for a person."""
        return {"stopping": STOPPING} if self.drain.active else self._broken()

    def watch(self, *listeners: Listener) -> None:
        """Read the certificates of these again, when they have changed and on SIGHUP."""
        for listener in listeners:
            shown = listener.certificates
            if shown is not None:
                self.listeners.append(listener)
                self.reload.add(Part(shown.reload, shown.has_changed))

    def service(self, behind: IService, *doors: IService) -> IService:
        """Everything as one service.

        Args:
            behind: What has to run as long as there are clients; it stops last, and all at once.
            *doors: What lets clients in; it stops first.
        """
        return _in_phases(_in_phases(behind, self.reload), self.drain, *doors, self._supervised)


def keeping(
    settings: Settings,
    clients: Hub,
    judge: object,
    broken: Callable[[], Mapping[str, str]],
    reactor: Any,
) -> Keeping:
    """Make it.

    Args:
        settings: As they are in force.
        clients: Whom the process serves.
        judge: The authenticator; what it reads from files is read again.
        broken: Tells what is not in order, by hop.
        reactor: The reactor.
    """
    notify = Notify(os.environ)
    drain = Drain(reactor, clients.factory, settings.drain)
    if hasattr(judge, "tell"):
        judge.tell(clients.factory.turn_over)
    reads = [Part(_rules(settings, clients)), *(Part(each) for each in getattr(judge, "reloads", ()))]
    reload = Reload(reactor, notify, reads)

    def condition() -> Condition:
        reasons = "; ".join(f"{hop}: {reason}" for hop, reason in broken().items())
        doing = [f"serving {clients.factory.counts.clients} clients"]
        doing += [f"reload refused: {reason}" for reason in reload.unusable.values()]
        return Condition(reasons, "; ".join(doing))

    supervised = Supervised(reactor, notify, condition, stops_within=settings.drain)
    return Keeping(drain, reload, supervised, broken)


def _rules(settings: Settings, clients: Hub) -> Callable[[], str]:
    """What puts the access rules in force that stand in the configuration by then."""

    def read() -> str:
        found = settings.again()
        words = reconsidered(clients, found)
        others = settings.differs(found)
        if others:
            _log.warn("reload_needs_restart: {options} differ, and count from the next start on", options=others)
        return words

    return read


def _in_phases(*services: IService) -> MultiService:
    parent = Phases()
    for service in services:
        service.setServiceParent(parent)
    return parent
