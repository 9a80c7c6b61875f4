"""Directories that go away together with the processes that work in them, also when the test run is killed.

A small process, the keeper, waits for the end of the one that made the directory. It then kills every process that carries
the directory's mark in its environment, wherever it has gone (own session, own group, orphaned), and removes the directory.
An `atexit` function would not run after a kill -9, and Linux's parent-death signal follows the thread that started a child,
not the process, and reaches no grandchildren.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MARK = "TOWERBUS_TEST_DIRECTORY"
"""The variable that marks a process as one that ends with the directory."""

ENDS_WITHIN = 60.0
"""Seconds for processes to end after SIGKILL; they need milliseconds."""


class KeptDirectory:
    """A new directory.

    Attributes:
        path: Where it is.
        mark: What the environment of every process that belongs to it must hold.
    """

    def __init__(self, prefix):
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self.mark = {MARK: str(self.path)}
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(self.path), str(os.getpid())],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def processes(self):
        """The ids of the processes that carry the mark."""
        return _marked(str(self.path))

    def remove(self):
        """Kill the processes and remove the directory; the keeper does it as it would at our end."""
        self._keeper.stdin.close()
        self._keeper.wait()


def _marked(directory):
    wanted, found = f"{MARK}={directory}".encode(), []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                variables = Path("/proc", entry, "environ").read_bytes()
            except OSError:  # it has ended, or it is another user's
                continue
            if wanted in variables.split(b"\0"):
                found.append(int(entry))
    return found


def _keep(directory, parent):
    """Wait for the parent's end, then sweep."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The pipe ends with the parent at once, except where a forked child still holds it: therefore also the look.
    while os.getppid() == parent and not select.select([0], [], [], 1.0)[0]:
        pass
    until = time.monotonic() + ENDS_WITHIN
    while (found := _marked(directory)) and time.monotonic() < until:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _keep(sys.argv[1], int(sys.argv[2]))
