"""The emitter's log, and pika's words in it: five for each connection that fails, where one of ours says the reason.

Other users of pika in the same program keep theirs, and all are there when `towerbus.emitter` logs at DEBUG.
"""

from __future__ import annotations

import logging

THREAD = "towerbus-emitter"
"""The name of the emitter's threads."""
log = logging.getLogger("towerbus.emitter")


class _Quiet(logging.Filter):
    """Lets nothing of our own threads pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != THREAD or log.isEnabledFor(logging.DEBUG)


def keep_quiet() -> None:
    """Do so; after all of pika that is used was imported."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "pika":
            logging.getLogger(name).addFilter(_Quiet())
