"""The events of ansible-runner as Tower's clients read them: what the callback receiver made of its queue. Pure.

The keys are those of AWX 9.3 and later (`emit_event_detail` in awx/main/models/events.py). Tower's clients compare
them, so none is added. A message with the event `EOF`, which Tower's runners send last, becomes the job's summary.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from towerbus.bridge.template import MissingError

EVENTS_PER_JOB = 1_000_000
"""Ids left for the events of one job: Tower takes an event's id from its database, and here is none."""
KINDS = {
    "job_id": ("job_events", "job"),
    "ad_hoc_command_id": ("ad_hoc_command_events", "ad_hoc_command"),
    "project_update_id": ("project_update_events", "project_update"),
    "inventory_update_id": ("inventory_update_events", "inventory_update"),
    "system_job_id": ("system_job_events", "system_job"),
}
"""Which key of a message says what it belongs to: the group of its events, and the key under which they name it."""

_LEVEL_1 = frozenset({"playbook_on_play_start", "playbook_on_stats", "playbook_on_vars_prompt"})
_FAILURES = frozenset(
    {
        "runner_on_failed",
        "runner_on_error",
        "runner_on_unreachable",
        "runner_on_async_failed",
        "runner_item_on_failed",
        "error",
    }
)


class RunnerEvent(NamedTuple):
    """What a runner's event came to.

    Attributes:
        group: Its group.
        type: What it belongs to: the job's id.
        payload: What clients get.
        id: The same whenever the same event comes.
    """

    group: str
    type: str
    payload: dict[str, Any]
    id: str


def runner_event(raw: Mapping[str, Any], job: str | int | None = None) -> RunnerEvent:
    """Make Tower's event of a runner's.

    Args:
        raw: What ansible-runner handed to its `event_handler`, with what it belongs to under one of the keys of
            `KINDS` where there is a Tower; the runner itself says `runner_ident`.
        job: What it belongs to, where the message's payload does not say it.

    Raises:
        MissingError: It is not a runner's event.
    """
    key = next((key for key in KINDS if raw.get(key) is not None), "job_id")
    group, name = KINDS[key]
    belongs = job if job is not None else raw.get(key, raw.get("runner_ident"))
    if isinstance(belongs, bool) or not isinstance(belongs, str | int) or belongs == "":
        raise MissingError(f"nothing says which job it belongs to: it has none of {', '.join(KINDS)}, runner_ident")
    # Python makes no number of more than 4,300 digits.
    number = int(belongs) if re.fullmatch("[0-9]{1,18}", str(belongs)) else belongs
    if raw.get("event") == "EOF":
        payload = {"group_name": "jobs", "unified_job_id": number, "final_counter": _whole(raw, "final_counter")}
        return RunnerEvent("jobs", "summary", payload, f"{group}-{belongs}-EOF-{payload['final_counter']}")
    if not isinstance(raw.get("event"), str) or not isinstance(raw.get("uuid"), str):
        raise MissingError("it is no event of ansible-runner's: it has no event or no uuid")
    return RunnerEvent(
        group,
        str(belongs),
        _detail(raw, group, name, number),
        f"{group}-{belongs}-{raw['uuid']}-{_whole(raw, 'counter')}",
    )


def _detail(raw: Mapping[str, Any], group: str, name: str, job: str | int) -> dict[str, Any]:
    event, counter, created = raw["event"], _whole(raw, "counter"), str(raw.get("created") or "")
    data = raw.get("event_data")
    data = data if isinstance(data, dict) else {}
    # A job that has a name instead of a number gets a number for its events' ids.
    base = job if isinstance(job, int) else zlib.crc32(job.encode())
    id_ = base * EVENTS_PER_JOB + counter
    linked = group in {"job_events", "ad_hoc_command_events"}
    return {
        "id": id_,
        name: job,
        "created": created,
        "modified": created,
        "group_name": group,
        "url": f"/api/v2/{group}/{id_}" if linked else "",
        "stdout": str(raw.get("stdout") or ""),
        "counter": counter,
        "uuid": raw["uuid"],
        "parent_uuid": str(raw.get("parent_uuid") or ""),
        "start_line": _whole(raw, "start_line"),
        "end_line": _whole(raw, "end_line"),
        "event": event,
        "event_data": data,
        "failed": _failed(event, data),
        "changed": _changed(event, data),
        "event_level": _level(event),
        "play": _text(data, "play"),
        "role": _text(data, "role"),
        "task": _text(data, "task"),
    }


def _whole(raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise MissingError(f"{key} is {value!r:.40}, wanted is a whole number")
    return value


def _level(name: str) -> int:
    """How deep Tower shows an event: 3 for a host's result, 2 for a task, 1 for a play, 0 for the rest."""
    if name.startswith("runner_"):
        return 3
    if name in _LEVEL_1:
        return 1
    return 2 if name.startswith("playbook_on_") and name != "playbook_on_start" else 0


def _failed(name: str, data: Mapping[str, Any]) -> bool:
    if name == "playbook_on_stats":
        return _any(data, "failures") or _any(data, "dark")
    return name in _FAILURES and not data.get("ignore_errors")


def _changed(name: str, data: Mapping[str, Any]) -> bool:
    if name == "playbook_on_stats":
        return _any(data, "changed")
    result = data.get("res")
    return isinstance(result, dict) and bool(result.get("changed"))


def _any(data: Mapping[str, Any], key: str) -> bool:
    """Whether the statistics count anything for any host."""
    counts = data.get(key)
    return isinstance(counts, dict) and any(counts.values())


def _text(data: Mapping[str, Any], key: str) -> str:
    return str(data.get(key) or "").strip()
