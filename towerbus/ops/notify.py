"""What the service manager is told: sd_notify(3), written down in systemd's own documentation. Without one, nothing.

READY comes when the process does its work, not when it has started. The watchdog is fed by that work: by the canary
that came back, or by the session with the broker. While it is broken the watchdog gets no food, and more time: an
outage of the broker is nothing that a restart of this process mends, but one that does not end might be.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

OUTAGE = 600.0
"""Seconds for which what this process needs may be broken, after which the watchdog has it restarted."""
EVERY = 1.0
"""Seconds between two looks, at the most."""
STOPS_WITHIN = 15.0
"""Seconds that the rest of a stop may take, beside what was asked for."""
_MICROSECONDS = 1_000_000
_log = Logger()


class Notify:
    """The way to the service manager.

    Args:
        environment: The process's environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.

    Attributes:
        watchdog: Seconds within which the watchdog wants to be fed; None where there is none.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._ready = False
        self.watchdog = _watchdog(environment) if self._address else None

    def __bool__(self) -> bool:
        return bool(self._address)

    def tell(self, **fields: object) -> None:
        """Tell the service manager, each field in one line; whether it listens is no concern of ours."""
        if not self._address:
            return
        self._ready |= "READY" in fields
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            sending.sendto(text.encode(), address)

    def reloading(self) -> None:
        """Tell that the configuration is read again, until `reloaded`."""
        if self._ready:
            self.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def reloaded(self) -> None:
        """Tell that it was read. A process that was not ready before is not by that."""
        if self._ready:
            self.tell(READY=1)


class Condition(NamedTuple):
    """How a process is.

    Attributes:
        broken: What keeps it from its work, for a person; empty while it does it.
        doing: What it does, for a person.
    """

    broken: str
    doing: str


class Supervised(Service):
    """Tells the service manager how the process is, for as long as it runs.

    Args:
        clock: Calls later (IReactorTime).
        notify: The way to the service manager.
        condition: Tells how it is.
        stops_within: Seconds that a stop may take by what was configured.
    """

    def __init__(
        self, clock: Any, notify: Notify, condition: Callable[[], Condition], *, stops_within: float = 0.0
    ) -> None:
        self._notify = notify
        self._condition = condition
        self._stops_within = stops_within + STOPS_WITHIN
        self._ready = self._well = False
        self._status = ""
        self._loop = LoopingCall(self._turn)
        self._loop.clock = clock

    def startService(self) -> None:
        """Begin."""
        super().startService()
        if self._notify:
            every = EVERY if self._notify.watchdog is None else min(EVERY, self._notify.watchdog / 4)
            self._loop.start(every).addErrback(_unexpected)

    def stopService(self) -> None:
        """Tell that it stops, and how long that may take."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        extended = round(self._stops_within * _MICROSECONDS)
        self._notify.tell(STOPPING=1, STATUS="stopping", EXTEND_TIMEOUT_USEC=extended)

    def _turn(self) -> None:
        try:
            condition = self._condition()
        except Exception:  # noqa: BLE001 - whatever it is, it is no sign of health
            _log.failure("condition_unknown")
            condition = Condition("its condition can't be told: see its log", "")
        fields: dict[str, object] = {}
        status = f"not ready: {condition.broken}" if condition.broken else condition.doing
        if status != self._status:
            fields["STATUS"] = self._status = status
        fields |= self._fault() if condition.broken else self._health()
        if fields:
            self._notify.tell(**fields)

    def _fault(self) -> dict[str, object]:
        was, self._well = self._well, False
        if was and self._notify.watchdog is not None:
            return {"WATCHDOG_USEC": round(max(OUTAGE, self._notify.watchdog) * _MICROSECONDS)}
        return {}

    def _health(self) -> dict[str, object]:
        fields: dict[str, object] = {}
        if not self._ready:
            self._ready = True
            fields["READY"] = 1
        if self._notify.watchdog is not None:
            if not self._well:
                fields["WATCHDOG_USEC"] = round(self._notify.watchdog * _MICROSECONDS)
            fields["WATCHDOG"] = 1
        self._well = True
        return fields


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """What the service manager wants of this process (sd_watchdog_enabled(3))."""
    try:
        microseconds, process = int(environment["WATCHDOG_USEC"]), int(environment.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return microseconds / _MICROSECONDS if process == os.getpid() and microseconds > 0 else None


def _unexpected(failure: Failure) -> None:
    _log.failure("supervision_failed", failure)
