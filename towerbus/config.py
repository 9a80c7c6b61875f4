"""The configuration: every option from the command line, the environment or a TOML file, in falling precedence.

A mistake is named with its file, key, what it got and what it wants, before anything listens.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from towerbus.access import Rule
from towerbus.errors import ConfigError
from towerbus.event import MAX_PAYLOAD

PREFIX = "TOWERBUS_"
"""Before an option's name in the environment."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    if not isinstance(value, Sequence) or not all(isinstance(item, str) and item for item in value):
        raise ValueError("a list of texts")
    return tuple(value)


def _paths(value: object) -> tuple[str, ...]:
    paths = _texts(value)
    if not paths or not all(path.startswith("/") for path in paths):
        raise ValueError("paths that begin with /")
    return paths


def _patterns(value: object) -> tuple[str, ...]:
    patterns = _texts(value)
    for pattern in patterns:
        try:
            re.compile(pattern.replace("*", ".*"))
        except re.error as error:
            raise ValueError(f"patterns such as https://*.example.com ({error})") from None
    return patterns


def _number(kind: type[int] | type[float], what: str, least: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        wanted = f"{what}, {least:g} or more"
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(wanted)  # noqa: TRY004 - one kind of error for a wrong value
        try:
            number, whole = kind(value), float(value)
        except (ValueError, OverflowError):
            raise ValueError(wanted) from None
        if not least <= number < float("inf") or number != whole:
            raise ValueError(wanted)
        return number

    return read


class Option(NamedTuple):
    """One option.

    Attributes:
        name: As it is written on the command line, without `--`.
        default: Where it is given nowhere.
        read: Makes a value of what was given, or raises ValueError with what is wanted.
        help: One line for `--help`.
        many: Whether it may be given several times.
    """

    name: str
    default: Any
    read: Callable[[object], Any]
    help: str
    many: bool = False

    @property
    def key(self) -> str:
        """Its name in a TOML file and in `Settings`."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.key.upper()


_BYTES = "a whole number of bytes"
_SECONDS = "a number of seconds"

OPTIONS = (
    Option("bus", "memory:", _text, "where events are kept: memory: (gone with the process)"),
    Option("listen", "tcp:8051:interface=127.0.0.1", _text, "endpoint of the WebSocket, a Twisted endpoint string"),
    Option("http", "tcp:8052:interface=127.0.0.1", _text, "endpoint of plain HTTP: POST /emit"),
    Option(
        "auth",
        (),
        _texts,
        "who is let in: jwt:PATH, tokens:FILE, callback:URL or session:URL; may be given several times, "
        "first match wins; without any, one token is made for this run and printed",
        many=True,
    ),
    Option("ask-url", "", _text, "URL of the application that is asked who may see single topics (who = ask)"),
    Option(
        "path", ("/websocket/", "/websocket"), _paths, "path of the WebSocket; may be given several times", many=True
    ),
    Option("origin", (), _patterns, "pattern of Origin headers that are let in, several times; all if none", many=True),
    Option(
        "session-cookie",
        ("awx_sessionid", "sessionid"),
        _texts,
        "name of the application's session cookie; may be given several times",
        many=True,
    ),
    Option("max-frame", 64 * 1024, _number(int, _BYTES, 125), "bytes in a client's message, at the most"),
    Option("max-payload", MAX_PAYLOAD, _number(int, _BYTES, 2), "bytes in an event's payload, at the most"),
    Option("outbox", 1024 * 1024, _number(int, _BYTES, 1024), "bytes that may wait for a client that reads slowly"),
    Option("ping-interval", 20.0, _number(float, _SECONDS, 1), "seconds between pings; two unanswered end a client"),
    Option("handshake-timeout", 10.0, _number(float, _SECONDS, 1), "seconds for a handshake, and for authentication"),
    Option("close-timeout", 10.0, _number(float, _SECONDS, 1), "seconds for a client to answer a close"),
    Option("log-max-bytes", 64 * 1024 * 1024, _number(int, _BYTES, 1024), "bytes of events that the log keeps"),
    Option("log-max-age", 3600.0, _number(float, _SECONDS, 1), "seconds that the log keeps an event"),
)


class Settings(msgspec.Struct, frozen=True):
    """What the options came to: one field for each of `OPTIONS`, and the access rules."""

    bus: str
    listen: str
    http: str
    auth: tuple[str, ...]
    ask_url: str
    path: tuple[str, ...]
    origin: tuple[str, ...]
    session_cookie: tuple[str, ...]
    max_frame: int
    max_payload: int
    outbox: int
    ping_interval: float
    handshake_timeout: float
    close_timeout: float
    log_max_bytes: int
    log_max_age: float
    access: tuple[Rule, ...] | None = None


def settings(given: Mapping[str, object], environment: Mapping[str, str], file: str | None = None) -> Settings:
    """Put the options together.

    Args:
        given: From the command line, by key; only those that were given.
        environment: The process's environment.
        file: The TOML file; `TOWERBUS_CONFIG` counts where it is None.

    Raises:
        ConfigError: One of them is not right.
    """
    path = file or environment.get(PREFIX + "CONFIG")
    table = _table(path) if path else {}
    access = _rules(table.pop("access"), str(path)) if "access" in table else None
    _check_keys(table, str(path))
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if option.key in given:
            values[option.key] = _value(option, given[option.key], f"--{option.name}")
        elif option.variable in environment:
            values[option.key] = _value(option, environment[option.variable], option.variable)
        elif option.key in table:
            values[option.key] = _value(option, table[option.key], f"{path}: {option.key}")
        else:
            values[option.key] = option.default
    return Settings(**values, access=access)


def _table(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error


def _check_keys(table: Mapping[str, object], path: str) -> None:
    known = {option.key for option in OPTIONS}
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: {key}: there is no such option; there are {', '.join(sorted(known))}, access")


def _rules(value: object, path: str) -> tuple[Rule, ...]:
    try:
        return msgspec.convert(value, tuple[Rule, ...])
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: access: {error}; wanted are tables [[access]] with groups, types (optional) and "
            'who = "everyone", "own", "granted", "ask" or "nobody"'
        ) from error


def _value(option: Option, given: object, source: str) -> Any:
    try:
        return option.read(given)
    except ValueError as error:
        raise ConfigError(f"{source}: got {given!r}, wanted {error}") from None
