"""The end of a process that can't do what it is for: a message and exit code 1.

twistd itself ends with 0 once its reactor has run, whatever was the reason to stop it.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

_log = Logger()


def give_up(reactor: Any, text: str) -> None:
    """Stop everything in order, and end the process with exit code 1.

    Args:
        reactor: The one that runs.
        text: What the person who started it is to read on standard error: what is wrong, and how to mend it.
    """
    _log.critical("giving_up: {text}", text=text)
    # Behind all services, and behind twistd's own end, which removes its pid file.
    reactor.addSystemEventTrigger("after", "shutdown", atexit.register, _leave, text)
    with suppress(ReactorNotRunning):  # two may give up at once
        reactor.stop()


def _leave(text: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # twistd puts what goes to sys.stderr into the log.
    if sys.__stderr__ is not None:
        print(text, file=sys.__stderr__, flush=True)  # noqa: T201
    os._exit(1)
