"""The options: their names, defaults, what they take, and which of twistd's commands have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from towerbus.event import MAX_PAYLOAD

PREFIX = "TOWERBUS_"
"""Before an option's name in the environment."""

EVERYTHING, SERVER, WORKER = "towerbus", "towerbus-server", "towerbus-worker"
BRIDGE = "towerbus-bridge"
"""The commands of twistd."""


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
        "bytes in a segment of RabbitMQ's log, which lets go of whole segments; a quarter of log-max-bytes at the most",
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
