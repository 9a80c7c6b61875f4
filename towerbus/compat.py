"""Tower's own call, so that its callers need no change but an import."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from towerbus import topics
from towerbus.emitter import Emitter
from towerbus.errors import ConfigError, NotConfirmed

_emitters: list[Emitter] = []
"""The process's emitter, once there is one. It has no lock: one that a thread holds while the process forks would be
held for ever in the child. Where two threads are first at once, one of their emitters is used only once."""


class ChannelNotConfirmed(NotConfirmed, OSError):
    """The notification was not confirmed. Tower's callers catch OSError where a lost notification must not hurt."""


def emit_channel_notification(group: str, payload: Mapping[str, Any]) -> None:
    """Send a payload to all who subscribed to a group.

    The server and the token come from `TOWERBUS_URL` and `TOWERBUS_TOKEN`, which are read at the first call; or the
    broker from `TOWERBUS_URL=amqp://user:password@host/vhost`, which needs no token. A call takes at the most
    `TOWERBUS_TIMEOUT` seconds (10 where it is not set). One emitter is kept for the process, and may be used by its
    threads and by its children.

    Args:
        group: The joined name, such as `jobs-status_changed` or `job_events-42`.
        payload: A non-empty dict.

    Raises:
        ChannelNotConfirmed: There was no confirmation in time; also an OSError, as Tower's callers expect.
        PeerError: The name, the payload or the token is not right.
        ConfigError: The environment is not right.
    """
    topic = topics.from_name(group)
    if not _emitters:
        _emitters.append(Emitter(timeout=_timeout()))
    try:
        _emitters[0].emit(topic.group, topic.type, payload)
    except NotConfirmed as error:
        raise ChannelNotConfirmed(error.reason, error.ids, sure=error.sure) from error


def _timeout() -> float:
    given = os.environ.get("TOWERBUS_TIMEOUT", "10")
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"TOWERBUS_TIMEOUT: got {given!r}, wanted a number of seconds above 0")
    return seconds
