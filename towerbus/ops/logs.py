"""Log lines: for a person on a terminal, and one JSON object for each event where a program reads them.

    twistd --logger=towerbus.ops.logs.lines towerbus-server

A line of JSON has `time` (seconds since the epoch of Unix), `level`, `event` (the word before the colon, by which
alarms find it; for lines that are not ours `twisted`, `python_warning` or `unhandled_error`), `text` (the whole, for a
person), `from` (the module), and the event's own keys. Values that JSON does not know are texts. Under systemd a line
begins with its priority, `<4>`, which the journal takes off (sd-daemon(3)).
"""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

import msgspec
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
)

_PRIORITIES = {LogLevel.debug: 7, LogLevel.info: 6, LogLevel.warn: 4, LogLevel.error: 3, LogLevel.critical: 2}
_NAME = re.compile(r"[a-z][a-z0-9_]*(?=:|$)")
_encode = msgspec.json.Encoder(enc_hook=str).encode


def lines() -> ILogObserver:
    """The observer for `twistd --logger`: a person's lines on a terminal, else JSON."""
    output = sys.__stdout__
    assert output is not None  # noqa: S101 - who has no output names no logger for it
    if output.isatty():
        observer = FileLogObserver(output, formatEventAsClassicLogText)
    else:
        observer = FileLogObserver(output, journal_line if "JOURNAL_STREAM" in os.environ else json_line)
    return _from_info_on(observer)


def json_to(output: TextIO) -> ILogObserver:
    """An observer that writes JSON to a file."""
    return _from_info_on(FileLogObserver(output, json_line))


def journal_line(event: LogEvent) -> str:
    """One event as a line of JSON with its priority before it."""
    return f"<{_PRIORITIES.get(event.get('log_level', LogLevel.info), 6)}>{json_line(event)}"


def json_line(event: LogEvent) -> str:
    """One event as a line of JSON. Whatever is in it, this is one line, and it raises nothing."""
    text = formatEvent(event)
    level = event.get("log_level", LogLevel.info)
    line = {
        "time": round(event.get("log_time", 0.0), 6),
        "level": level.name,
        "event": _named(event),
        "text": text,
        "from": event.get("log_namespace", ""),
        **{key: _told(value) for key, value in event.items() if _is_ours(key)},
    }
    if event.get("log_failure") is not None:
        line["traceback"] = eventAsText(event, includeTimestamp=False, includeSystem=False)
    try:
        return _encode(line).decode() + "\n"
    except Exception:  # noqa: BLE001 - a value that can't be told must not take the line with it
        plain = {key: _safe(value) for key, value in line.items()}
        return _encode(plain).decode("utf-8", "replace") + "\n"


def _named(event: LogEvent) -> str:
    """The event's name; for what has none, one by its kind."""
    named = _NAME.match(event.get("log_format") or "")
    if named:
        return named[0]
    if event.get("log_failure") is not None:
        return "unhandled_error"
    return "python_warning" if "warning" in event else "twisted"


def _is_ours(key: str) -> bool:
    return not key.startswith("log_") and key not in {"time", "level", "event", "text", "from", *_OLD}


_OLD = frozenset({"isError", "message", "format", "system", "failure", "why", "log_text"})
"""Keys of Twisted's older logging, which its newer events carry along."""


_JSON = (type(None), str, int, float, list, tuple, dict, set, frozenset)


def _told(value: object) -> object:
    """What JSON has words for as it is, and anything else as the text a person reads: an address in its own words."""
    return value if isinstance(value, _JSON) else _safe(value)


def _safe(value: object) -> str:
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001 - as above
        return "?"


def _from_info_on(observer: ILogObserver) -> ILogObserver:
    return FilteringLogObserver(observer, [LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)])
