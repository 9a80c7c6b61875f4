"""What the doctor finds, and how it judges what it sees. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

DOCTOR = "towerbus doctor"
"""The name of its own connection."""
OLDEST = (3, 10)
"""The oldest RabbitMQ that is known to work."""
CLOCK = 2.0
"""Seconds that two clocks may differ: tokens are good or bad by the clock."""
WAITING = 10_000
"""Messages in the intake from which on the worker is not keeping up."""
FILES = 4096
"""Open files from which on a server can serve a crowd."""
REPLICAS = 3
"""Copies of a queue that survive the loss of a node."""


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    """It could not be looked at."""
    WARNING = "warning"
    """It works, and will not always."""
    ERROR = "error"
    """It does not work."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        check: What was looked at, in a word or two.
        level: How bad it is.
        text: What was seen.
        mend: What to do; empty where nothing is.
    """

    check: str
    level: Level
    text: str
    mend: str = ""


def ok(check: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(check, Level.OK, text)


def note(check: str, text: str, mend: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(check, Level.NOTE, text, mend)


def warning(check: str, text: str, mend: str) -> Finding:
    """It works, and will not always."""
    return Finding(check, Level.WARNING, text, mend)


def error(check: str, text: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.ERROR, text, mend)


def version(product: str, text: str) -> Finding:
    """Judge the broker's version."""
    found = re.match(r"(\d+)\.(\d+)", text)
    shown = f"{product} {text}"
    if found is None:
        return note(
            "version", f"{shown}: the version can't be read", f"RabbitMQ {OLDEST[0]}.{OLDEST[1]} or later is wanted"
        )
    if (int(found[1]), int(found[2])) < OLDEST:
        return error(
            "version", f"{shown} is too old", f"upgrade to RabbitMQ {OLDEST[0]}.{OLDEST[1]} or later: it needs streams"
        )
    return ok("version", shown)


def intake(messages: int, readers: int) -> Finding:
    """Judge the intake by what waits in it and whether a worker reads it.

    Args:
        messages: That wait.
        readers: As `queue.declare-ok` counts them: the active worker alone. Who stands by, `workers` knows.
    """
    seen = f"{messages} messages wait, {'a' if readers else 'no'} worker is active"
    if not readers:
        return error("intake", seen, "start a worker: twistd towerbus-worker")
    if messages > WAITING:
        return warning("intake", seen, "the worker does not keep up: look at its log and at the broker's disk")
    return ok("intake", seen)


def workers(told: Mapping[str, Any]) -> Iterable[Finding]:
    """Judge who reads the intake by what the management API tells of that queue: the active worker and the others.

    For some seconds after they came the API knows nothing of them; then nothing is said.
    """
    readers = told.get("consumer_details")
    if not isinstance(readers, list) or not readers:
        return
    standby = len(readers) - 1
    if not standby:
        text = "one worker is connected, and none stands by"
        yield warning("workers", text, "start a second one, on another machine if there is one: it takes over at once")
    else:
        yield ok("workers", f"{len(readers)} workers are connected: one is active, {standby} by its side")


SEGMENTS = 4
"""Segments that a log has to have room for."""
_ANEW = " of the worker, and make the log anew"
"""What an option of a stream needs: its arguments are fixed when it is declared."""


def retention(
    *,
    window: float,
    max_age: float,
    span: float | None,
    cut: bool,
    max_bytes: int,
    segment_bytes: int = 0,
    then: str = _ANEW,
) -> list[Finding]:
    """Judge whether a client that comes back after `window` seconds finds what it missed.

    Args:
        window: Seconds for which coming back without loss was promised.
        max_age: Seconds that the log is told to keep.
        span: Seconds that the log really reaches back; None where it is empty.
        cut: Whether the log has let go of records already.
        max_bytes: Bytes that the log is told to keep.
        segment_bytes: Bytes in a segment; 0 where it lets go of single records.
        then: What is to be done with the options that are named.
    """
    found = []
    if max_age < window:
        text = f"the log keeps {max_age:g} s, promised are {window:g} s"
        found.append(error("retention", text, f"raise --log-max-age{then}"))
    if cut and span is not None and span < window:
        text = f"the log reaches back {span:.0f} s only, promised are {window:g} s: it is full"
        found.append(error("retention", text, f"raise --log-max-bytes{then}"))
    found += segments(segment_bytes, max_bytes)
    if found:
        return found
    reach = "it is empty" if span is None else f"it reaches back {span:.0f} s now"
    return [ok("retention", f"the log keeps {max_age:g} s ({reach}), promised are {window:g} s")]


def segments(segment_bytes: int, max_bytes: int) -> list[Finding]:
    """Judge whether a log has room for enough segments; only where it has not is there anything to say.

    RabbitMQ lets go of all but the newest segment, which may just have begun, where each is larger than the whole log
    may be: nothing is left then, also of what nobody has read yet.

    Args:
        segment_bytes: Bytes in a segment; 0 where it lets go of single records.
        max_bytes: Bytes that the log is told to keep.
    """
    if segment_bytes * SEGMENTS <= max_bytes:
        return []
    text = (
        f"segments of {segment_bytes} bytes in a log of {max_bytes}: it lets go of whole ones, "
        "a quarter of itself or more at once, and may keep nothing at times"
    )
    return [warning("segments", text, f"lower --log-segment-bytes, or raise --log-max-bytes{_ANEW}")]


def clock(theirs: float, ours: float, whose: str) -> Finding:
    """Judge two clocks, in seconds since the epoch of Unix."""
    apart = abs(theirs - ours)
    if apart > CLOCK:
        text = f"{whose} clock and this machine's are {apart:.0f} s apart"
        return warning("clock", text, "keep both by NTP: tokens begin and end by the clock")
    return ok("clock", f"{whose} clock agrees with this machine's")


def open_files(soft: int, hard: int) -> Finding:
    """Judge this machine's limit of open files; the server raises the soft one by itself."""
    if hard < FILES:
        text = f"a process may open {hard} files: a client needs one"
        return warning("limits", text, "LimitNOFILE= in the unit, or ulimit -Hn")
    return ok(
        "limits", f"a process may open {hard} files{f' (the server raises it from {soft})' if soft < hard else ''}"
    )


def node(told: Mapping[str, Any]) -> Iterable[Finding]:
    """Judge one node of the broker by what its management API tells of it."""
    name = str(told.get("name", "?"))
    if not told.get("running", True):
        yield error("node", f"{name} is down", "start it: queues without a majority of their copies stand still")
        return
    if told.get("mem_alarm"):
        yield error(
            "alarm", f"{name} is out of memory and takes nothing from producers", "give it memory, or drain queues"
        )
    if told.get("disk_free_alarm"):
        yield error(
            "alarm", f"{name} is low on disk and takes nothing from producers", "free disk space: disk_free_limit"
        )
    used, total = told.get("fd_used"), told.get("fd_total")
    if isinstance(used, int) and isinstance(total, int) and total and used > total * 0.8:
        yield warning("limits", f"{name} uses {used} of {total} file descriptors", "raise the broker's LimitNOFILE=")
    if told.get("partitions"):
        yield error("cluster", f"{name} is cut off from {told['partitions']}", "mend the network, restart the minority")


def queue(told: Mapping[str, Any], nodes: int) -> Iterable[Finding]:
    """Judge a queue's copies by what the management API tells of it.

    Args:
        told: The queue.
        nodes: Nodes of the cluster.
    """
    # For some seconds after it was declared the API knows neither its state nor its members.
    name, state = str(told.get("name", "?")), str(told.get("state", "running"))
    members, online = _names(told.get("members")), _names(told.get("online"))
    if state != "running" or (members and len(online) * 2 <= len(members)):
        yield error(
            "replicas",
            f"{name} is {state}: {len(online)} of {len(members)} copies are up",
            "start the nodes that hold it; one that never comes back was killed within a second of its first declare: "
            "delete the queue, and the worker makes it anew",
        )
    elif len(online) < len(members):
        down = ", ".join(sorted(set(members) - set(online)))
        yield warning("replicas", f"{name}: the copy on {down} is down", "start that node")
    elif members and nodes >= REPLICAS > len(members):
        command = "rabbitmq-streams add_replica" if told.get("type") == "stream" else "rabbitmq-queues add_member"
        yield warning("replicas", f"{name} has {len(members)} copies on {nodes} nodes", f"make {REPLICAS}: {command}")
    if told.get("policy"):
        yield note("policy", f"{name} is under the policy {told['policy']!r}", "see that it does not change its limits")


def _names(told: object) -> Sequence[str]:
    return [str(each) for each in told] if isinstance(told, list) else []
