"""The processes that supervisord runs, through its XML-RPC (https://supervisord.org/api.html)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import Faults, SupervisorTransport

_AT_REST = frozenset({"STOPPED", "STOPPING"})
"""States of what somebody has stopped, or is stopping."""
_ENDED = frozenset({"EXITED", "FATAL", "UNKNOWN"})
"""States in which there is nothing to stop."""


class Outcome(NamedTuple):
    """What came of a restart.

    Attributes:
        restarted: Processes that run again.
        failed: Processes that were started and ended at once.
        left: Processes that somebody has stopped by hand, and that stay so.
    """

    restarted: tuple[str, ...]
    failed: tuple[str, ...]
    left: tuple[str, ...]


class Processes:
    """The processes of one group.

    Args:
        socket: The path of supervisord's Unix socket.
        group: The group's name.
    """

    def __init__(self, socket: str, group: str) -> None:
        # The URL's host is of no account: the transport has its own way.
        transport = SupervisorTransport(None, None, serverurl=f"unix://{socket}")
        self._supervisor: Any = ServerProxy("http://127.0.0.1", transport=transport).supervisor
        self._group = group

    def restart(self) -> Outcome:
        """End all that were not stopped by hand, then start them again.

        Raises:
            OSError: supervisord can't be reached.
            Fault: It can't do that.
        """
        names = [name for name, state in self._states() if state not in _AT_REST]
        ended = [name for name in names if self._ended(name)]
        started = {name: self._started(name) for name in ended}
        return Outcome(
            tuple(name for name, good in started.items() if good),
            tuple(name for name, good in started.items() if not good),
            tuple(name for name, state in self._states() if state in _AT_REST and name not in started),
        )

    def begun(self) -> float:
        """When the first of those that run was started, in seconds since the epoch; infinity where none runs.

        Raises:
            OSError: supervisord can't be reached.
        """
        found = self._supervisor.getAllProcessInfo()
        return min((each["start"] for each in found if each["group"] == self._group and each["pid"]), default=math.inf)

    def _states(self) -> list[tuple[str, str]]:
        found = self._supervisor.getAllProcessInfo()
        return [(each["name"], each["statename"]) for each in found if each["group"] == self._group]

    def _ended(self, name: str) -> bool:
        """End a process; false where somebody was quicker and has stopped it."""
        try:
            self._supervisor.stopProcess(f"{self._group}:{name}")
        except Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise
            return dict(self._states())[name] in _ENDED
        return True

    def _started(self, name: str) -> bool:
        """Start a process; false where it ended before it had run for a moment."""
        try:
            self._supervisor.startProcess(f"{self._group}:{name}")
        except Fault as fault:
            if fault.faultCode == Faults.ALREADY_STARTED:  # by hand, and so with the newest files
                return True
            if fault.faultCode not in {Faults.ABNORMAL_TERMINATION, Faults.SPAWN_ERROR}:
                raise
            return False
        return True
