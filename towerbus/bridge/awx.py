"""What AWX's `wsrelay` (AWX 22 to 24.6.1) says to a web node, and what a web node says to it. Pure.

The relay dials `/websocket/relay/` with a header `secret: HMAC-SHA256 NONCE:MAC`, where NONCE is the time in seconds
since the epoch of Unix and MAC the HMAC, in hex, of a JSON object with the secret and the nonce, under the secret
itself. The web node then says which of the channel layer's groups it wants; the relay sends what is emitted to these.
Nothing is acknowledged.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from towerbus import topics
from towerbus.bridge.message import Message
from towerbus.errors import PeerError
from towerbus.event import new_id

TOLERANCE = 300
"""Seconds that a nonce may lie in the past or the future: AWX's own."""
PLACE = "AWX's wsrelay"
_SCHEME = "HMAC-SHA256"
_decode = msgspec.json.Decoder().decode
_FOLLOWED = {
    "job": "job_events",
    "ad_hoc_command": "ad_hoc_command_events",
    "project_update": "project_update_events",
    "inventory_update": "inventory_update_events",
    "system_job": "system_job_events",
    "workflow_job": "workflow_events",
}
"""The group with a job's own events, by what `jobs-status_changed` calls its type."""
_FINISHED = frozenset({"successful", "failed", "error", "canceled"})
STATUS = "jobs-status_changed"


class Verdict(enum.Enum):
    """What a header is; its value says it to a person."""

    GOOD = "good"
    MISSING = "there is no header `secret`"
    MALFORMED = "the header `secret` is not HMAC-SHA256 NONCE:MAC"
    EMPTY = "it was made with an empty secret, AWX's default: set BROADCAST_WEBSOCKET_SECRET in AWX"
    WRONG = "it was made with another secret: BROADCAST_WEBSOCKET_SECRET in AWX and the bridge's secret differ"
    OLD = f"it is over {TOLERANCE} s old: a replay, or the clocks differ"
    EARLY = f"it is over {TOLERANCE} s ahead: the clocks differ"


def header(secret: str, now: float) -> str:
    """The value of the header `secret`, as a relay makes it."""
    nonce = str(int(now))
    return f"{_SCHEME} {nonce}:{_mac(secret, nonce)}"


def judge(given: str | None, secret: str, now: float) -> Verdict:
    """Judge a header; the comparison takes the same time for whatever it holds.

    Args:
        given: The header's value; None where there is none.
        secret: The secret; not empty.
        now: Seconds since the epoch of Unix.
    """
    if not given:
        return Verdict.MISSING
    scheme, _, rest = given.partition(" ")
    nonce, colon, mac = rest.partition(":")
    if scheme != _SCHEME or not colon or not _is_time(nonce):
        return Verdict.MALFORMED
    good = hmac.compare_digest(_mac(secret, nonce).encode(), mac.encode())
    empty = hmac.compare_digest(_mac("", nonce).encode(), mac.encode())
    if not good:
        return Verdict.EMPTY if empty else Verdict.WRONG
    age = now - int(nonce)
    if abs(age) <= TOLERANCE:
        return Verdict.GOOD
    return Verdict.OLD if age > 0 else Verdict.EARLY


def subscribe(groups: Iterable[str], origin: str) -> bytes:
    """Ask for groups, on behalf of a channel."""
    return _wish("consumer.subscribe", groups, origin)


def unsubscribe(groups: Iterable[str], origin: str) -> bytes:
    """Let go of groups."""
    return _wish("consumer.unsubscribe", groups, origin)


class Relayed(NamedTuple):
    """What a relay has sent.

    Attributes:
        group: The channel layer's group, `jobs-status_changed`; empty where it could not be understood.
        message: What goes to the bus.
        job: The group of the events of a job of which this tells, `job_events-42`; empty where it tells of none.
        finished: Whether that job has come to its end.
    """

    group: str
    message: Message
    job: str
    finished: bool


def relayed(text: bytes) -> Relayed:
    """Understand what a relay has sent. What can't be understood becomes a message that no mapping will take.

    AWX gives its events no id; here each gets one, so that it can be forwarded again without being repeated.
    """
    try:
        outer = _decode(text)
        group, body = outer["group"], outer["message"]["text"].encode()
        topic = topics.from_name(group)
    except PeerError:
        # AWX has groups that are no topics, such as "metrics"; nobody has asked for them.
        return Relayed(str(group), Message(body=text, id=new_id(), place=PLACE), "", finished=False)
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError, UnicodeError, RecursionError):
        return Relayed("", Message(body=text, id=new_id(), place=PLACE), "", finished=False)
    message = Message(
        body=body, id=new_id(), group=topic.group, type=topic.type, content_type="application/json", place=PLACE
    )
    return Relayed(group, message, *_job(group, body))


def _job(group: str, body: bytes) -> tuple[str, bool]:
    if group != STATUS:
        return "", False
    try:
        status = _decode(body)
        kind, number = _FOLLOWED[status["type"]], status["unified_job_id"]
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            return "", False
        return f"{kind}-{number}", status.get("status") in _FINISHED
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError, UnicodeError, RecursionError):
        return "", False


def _wish(type_: str, groups: Iterable[str], origin: str) -> bytes:
    said: dict[str, Any] = {"type": type_, "groups": list(groups), "origin_channel": origin}
    return msgspec.json.encode(said)


def _is_time(nonce: str) -> bool:
    return nonce.isascii() and nonce.isdigit() and len(nonce) <= 15  # noqa: PLR2004 - some million years


def _mac(secret: str, nonce: str) -> str:
    # The very bytes of Python's json.dumps: AWX makes the MAC of these.
    said = json.dumps({"secret": secret, "nonce": nonce})
    return hmac.new(secret.encode(), said.encode(), hashlib.sha256).hexdigest()
