"""What Tower's clients read, made of what ansible-runner tells: dictionaries in, dictionaries out, no I/O.

The keys are those that AWX 9.3 and later emit (`emit_event_detail` in awx/main/models/events.py, and
`_websocket_emit_status` in awx/main/models/unified_jobs.py). Tower's clients compare them, so none is added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

FINISHED = frozenset({"successful", "failed", "canceled"})
"""The statuses that carry the time when the job finished; Tower sends none with `error`."""

EVENTS_PER_JOB = 1_000_000
"""Ids left for the events of one job: Tower takes an event's id from its database, and here is none."""

_LEVEL_0 = frozenset({"playbook_on_start"})
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
_CUT = "\n... cut: too large to broadcast"


def job_status(
    job: int, status: str, *, finished: datetime | None = None, template: int | None = None
) -> dict[str, Any]:
    """Make the payload of `jobs-status_changed`.

    Args:
        job: The job's id.
        status: pending, running, successful, failed, canceled or error.
        finished: When the job ended; left out of the payload where Tower leaves it out.
        template: The id of the job template, where there is one.
    """
    payload: dict[str, Any] = {"unified_job_id": job, "status": status, "group_name": "jobs", "type": "job"}
    if finished is not None and status in FINISHED:
        payload["finished"] = finished.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if template is not None:
        payload["unified_job_template_id"] = template
    return payload


def job_summary(job: int, final_counter: int) -> dict[str, Any]:
    """Make the payload of `jobs-summary`: how many events the runner produced. Having no `status` is what marks it."""
    return {"group_name": "jobs", "unified_job_id": job, "final_counter": final_counter}


def job_event(job: int, event: Mapping[str, Any]) -> dict[str, Any]:
    """Make the payload of `job_events-<job>` of one event of ansible-runner.

    Args:
        job: The job's id.
        event: What ansible-runner handed to its `event_handler`.
    """
    name = str(event.get("event", ""))
    data = event.get("event_data")
    data = data if isinstance(data, dict) else {}
    counter = int(event.get("counter", 0))
    id_ = job * EVENTS_PER_JOB + counter
    created = str(event.get("created", ""))
    return {
        "id": id_,
        "job": job,
        "created": created,
        "modified": created,
        "group_name": "job_events",
        "url": f"/api/v2/job_events/{id_}",
        "stdout": str(event.get("stdout", "")),
        "counter": counter,
        "uuid": str(event.get("uuid", "")),
        "parent_uuid": str(event.get("parent_uuid") or ""),
        "start_line": event.get("start_line", 0),
        "end_line": event.get("end_line", 0),
        "event": name,
        "event_data": data,
        "failed": _failed(name, data),
        "changed": _changed(name, data),
        "event_level": _level(name),
        "play": _text(data, "play"),
        "role": _text(data, "role"),
        "task": _text(data, "task"),
    }


def sendable(payload: dict[str, Any], limit: int) -> dict[str, Any]:
    """Make a job event fit to be broadcast, so that no single one can stop those after it.

    What is too large goes without the module's result, then without event data and most of its output. What is not
    JSON (NaN, half a surrogate pair: modules do return them) goes without event data.

    Args:
        payload: What `job_event` made.
        limit: Bytes of JSON, at the most; 64 KiB or more.
    """
    try:
        if size(payload) <= limit:
            return payload
        without = payload | {"event_data": payload["event_data"] | {"res": {}}}
        if size(without) <= limit:
            return without
    except (ValueError, TypeError, RecursionError):
        pass
    texts = {key: _clean(value) for key, value in payload.items() if isinstance(value, str)}
    names = {key: texts[key][:256] for key in ("play", "role", "task", "event", "uuid", "parent_uuid")}
    # A character is at most 6 bytes of JSON text, so that the output takes a quarter of the limit.
    stdout = texts["stdout"] if len(texts["stdout"]) <= limit // 24 else texts["stdout"][: limit // 24] + _CUT
    return payload | texts | names | {"event_data": {}, "stdout": stdout}


def size(payload: Mapping[str, Any]) -> int:
    """Bytes of JSON text.

    Raises:
        ValueError: It is not JSON.
        TypeError: It is not JSON.
    """
    return len(json.dumps(payload, ensure_ascii=False, allow_nan=False).encode())


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()


def _level(name: str) -> int:
    """How deep Tower shows an event: 3 for a host's result, 2 for a task, 1 for a play, 0 for the rest."""
    if name.startswith("runner_"):
        return 3
    if name in _LEVEL_1:
        return 1
    return 2 if name.startswith("playbook_on_") and name not in _LEVEL_0 else 0


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
