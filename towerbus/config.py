"""The configuration: every option from the command line, the environment or a TOML file, in falling precedence.

Where systemd hands over credentials, these count more than the file and less than the environment. A mistake is named
with its file, key, what it got and what it wants, before anything listens.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from towerbus.access import Rule
from towerbus.converting import convert
from towerbus.errors import ConfigError
from towerbus.event import MAX_PAYLOAD

PREFIX = "TOWERBUS_"
"""Before an option's name in the environment."""

CREDENTIAL = "towerbus_"
"""Before an option's key in the name of a credential."""

EVERYTHING, SERVER, WORKER = "towerbus", "towerbus-server", "towerbus-worker"
BRIDGE = "towerbus-bridge"
"""The commands of twistd."""


_OPTION = re.compile(r"--([a-z-]+)(?=[: ])")


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


def _switch(value: object) -> bool:
    known = {"on": True, "off": False, True: True, False: False}
    if not isinstance(value, str | bool) or value not in known:
        raise ValueError("on or off, in a file true or false")
    return known[value]


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
        commands: Those that have it. A configuration file may hold the options of all.
        narrower: What `--help` says to single commands in the place of `help` and the default.
    """

    name: str
    default: Any
    read: Callable[[object], Any]
    help: str
    many: bool = False
    commands: tuple[str, ...] = (EVERYTHING, SERVER)
    narrower: Mapping[str, str] = MappingProxyType({})

    @property
    def key(self) -> str:
        """Its name in a TOML file and in `Settings`."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.key.upper()


_BROKER = "RabbitMQ's URL, amqp://USER:PASSWORD@HOST/VHOST or amqps://...; better in TOWERBUS_BUS, for its password"
_BYTES = "a whole number of bytes"
_SECONDS = "a number of seconds"

OPTIONS = (
    Option(
        "bus",
        "memory:",
        _text,
        "where events are kept: memory: (gone with the process), sqlite:PATH, or amqp://USER:PASSWORD@HOST/VHOST; "
        "the separate server, worker and bridge need the last; better in TOWERBUS_BUS, for its password",
        commands=(EVERYTHING, SERVER, WORKER, BRIDGE),
        narrower=MappingProxyType(
            {
                EVERYTHING: "where events are kept: memory: (gone with the process) or sqlite:PATH [default: memory:]",
                SERVER: _BROKER,
                WORKER: _BROKER,
                BRIDGE: _BROKER,
            }
        ),
    ),
    Option("listen", "tcp:8051:interface=127.0.0.1", _text, "endpoint of the WebSocket, a Twisted endpoint string"),
    Option(
        "http", "tcp:8052:interface=127.0.0.1", _text, "endpoint of plain HTTP: POST /emit, /healthz, /readyz, /metrics"
    ),
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
    Option(
        "max-payload",
        MAX_PAYLOAD,
        _number(int, _BYTES, 2),
        "bytes in an event's payload, at the most",
        commands=(EVERYTHING, SERVER, WORKER, BRIDGE),
    ),
    Option("outbox", 1024 * 1024, _number(int, _BYTES, 1024), "bytes that may wait for a client that reads slowly"),
    Option(
        "compression",
        False,
        _switch,
        "on or off: whether clients that ask for it get events compressed (permessage-deflate)",
    ),
    Option(
        "ping-interval",
        20.0,
        _number(float, _SECONDS, 1),
        "seconds between pings; one unanswered by the next ends a client",
    ),
    Option("handshake-timeout", 10.0, _number(float, _SECONDS, 1), "seconds for a handshake, and for authentication"),
    Option("close-timeout", 10.0, _number(float, _SECONDS, 1), "seconds for a client to answer a close"),
    Option(
        "drain",
        5.0,
        _number(float, _SECONDS, 0),
        "seconds over which a server that stops lets go of its clients, and within which it asks them to come back",
    ),
    Option(
        "tail-bytes",
        32 * 1024 * 1024,
        _number(int, _BYTES, 1024),
        "bytes of the newest events that are kept in memory, for clients that come back",
    ),
    Option(
        "canary-interval",
        1.0,
        _number(float, _SECONDS, 0.1),
        "seconds between the canaries that each server sends through the whole bus",
        commands=(SERVER,),
    ),
    Option(
        "log-max-bytes",
        None,
        _number(int, _BYTES, 1024),
        "bytes of events that the log keeps; 64 MiB in memory, 1 GiB on disk and in RabbitMQ where it is not given",
        commands=(EVERYTHING, WORKER),
    ),
    Option(
        "log-max-age",
        None,
        _number(float, _SECONDS, 1),
        "seconds that the log keeps an event; 1 hour in memory, 1 day on disk and in RabbitMQ where it is not given",
        commands=(EVERYTHING, WORKER),
    ),
    Option(
        "log-segment-bytes",
        16 * 1024 * 1024,
        _number(int, _BYTES, 4096),
        "bytes in a segment of RabbitMQ's log, which lets go of whole segments",
        commands=(WORKER,),
    ),
    Option(
        "intake-max-bytes",
        256 * 1024 * 1024,
        _number(int, _BYTES, 4096),
        "bytes that may wait in RabbitMQ's intake; beyond that producers are refused",
        commands=(WORKER,),
    ),
    Option(
        "record-pause",
        0.002,
        _number(float, _SECONDS, 0),
        "seconds between two records at the least: longer ones cost the servers less, and come later",
        commands=(WORKER,),
    ),
    Option(
        "bridge-http",
        "tcp:8053:interface=127.0.0.1",
        _text,
        "endpoint of the bridge's plain HTTP: /healthz, /readyz, /metrics",
        commands=(BRIDGE,),
    ),
    Option(
        "bridge-state",
        "",
        _text,
        "directory where bridges keep what must outlive them: spools, and the positions of sinks",
        commands=(BRIDGE,),
    ),
)


def options(command: str) -> tuple[Option, ...]:
    """The options of one command."""
    return tuple(option for option in OPTIONS if command in option.commands)


class Source:
    """Where settings came from: the arguments of `settings`. Its text shows nothing of them."""

    __slots__ = ("environment", "file", "given")

    def __init__(self, given: Mapping[str, object], environment: Mapping[str, str], file: str | None) -> None:
        self.given, self.environment, self.file = given, environment, file


class Settings(msgspec.Struct, frozen=True):
    """What the options came to: one field for each of `OPTIONS`, the access rules, and where each was given.

    Attributes:
        sources: By key, for those that were given: `--name`, the variable, or the file and the key in it.
    """

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
    compression: bool
    ping_interval: float
    handshake_timeout: float
    close_timeout: float
    drain: float
    tail_bytes: int
    canary_interval: float
    log_max_bytes: int | None
    log_max_age: float | None
    log_segment_bytes: int
    intake_max_bytes: int
    record_pause: float
    bridge_http: str
    bridge_state: str
    access: tuple[Rule, ...] | None = None
    bridge: Any = None
    """The tables [[bridge]] as they stand in the file; `towerbus.bridge.configuration` reads them."""
    file: str = ""
    """The file's path; empty for none."""
    sources: Mapping[str, str] = {}

    def traced(self, text: str) -> str:
        """An error's text that begins with an option, with the place where that option was given in front instead."""
        found = _OPTION.match(text)
        source = self.sources.get(found[1].replace("-", "_")) if found else None
        return f"{source}{text[found.end() :]}" if found and source else text

    source: Source | None = None

    def again(self) -> Settings:
        """Read everything again from where it came from.

        Raises:
            ConfigError: Something of it is not right now.
        """
        assert self.source is not None  # noqa: S101 - `settings` has made it
        return settings(self.source.given, self.source.environment, self.source.file)

    def differs(self, other: Settings) -> list[str]:
        """The keys of the options that are others there."""
        return [option.key for option in OPTIONS if getattr(self, option.key) != getattr(other, option.key)]


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
    bridge = table.pop("bridge", None)
    _check_keys(table, str(path))
    values: dict[str, Any] = {}
    secrets = _credentials(environment.get("CREDENTIALS_DIRECTORY", ""))
    sources: dict[str, str] = {}
    for option in OPTIONS:
        for source, name, where in (
            (given, option.key, f"--{option.name}"),
            (environment, option.variable, option.variable),
            (secrets, option.key, f"credential {CREDENTIAL}{option.key}"),
            (table, option.key, f"{path}: {option.key}"),
        ):
            if name in source:
                values[option.key], sources[option.key] = _value(option, source[name], where), where
                break
        else:
            values[option.key] = option.default
    return Settings(
        **values,
        access=access,
        bridge=bridge,
        file=str(path or ""),
        sources=sources,
        source=Source(given, environment, file),
    )


def _table(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error


def _credentials(directory: str) -> dict[str, str]:
    """What the service manager hands over in files (systemd.exec(5), `LoadCredential=towerbus:DIRECTORY`), by key."""
    found: dict[str, str] = {}
    for option in OPTIONS if directory else ():
        path = Path(directory, CREDENTIAL + option.key)
        try:
            found[option.key] = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"credential {path}: can't be read: {error}") from error
    return found


def _check_keys(table: Mapping[str, object], path: str) -> None:
    known = {option.key for option in OPTIONS}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key.replace("-", "_"), known, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{path}: {key}: there is no such option{meant}; there are {', '.join(sorted(known))}, access, bridge"
            )


def _rules(value: object, path: str) -> tuple[Rule, ...]:
    try:
        return convert(value, tuple[Rule, ...], f"{path}: access")
    except ConfigError as error:
        raise ConfigError(
            f"{error}; an access rule is a table [[access]] with groups, types (optional) and "
            'who = "everyone", "own", "granted", "ask" or "nobody"'
        ) from error


def _value(option: Option, given: object, source: str) -> Any:
    try:
        return option.read(given)
    except ValueError as error:
        raise ConfigError(f"{source}: got {given!r}, wanted {error}") from None
