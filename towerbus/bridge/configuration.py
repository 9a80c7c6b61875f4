"""The tables `[[bridge]]` of the configuration: all of them are checked before anything starts. Pure but for imports.

    [[bridge]]
    name = "callback"
    [bridge.source]          # or [bridge.sink], with topics = [...] beside it
    kind = "amqp"
    ...                      # the kind's own keys
    [bridge.mapping]         # of a source, where one is needed
    ...

A value of a key whose name holds `url`, `dsn`, `secret` or `password` is never quoted in an error, and may be
`env:NAME`: then it is taken from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from towerbus import topics
from towerbus.bridge import kinds
from towerbus.bridge.mapping import MappingOptions
from towerbus.converting import MAX_SHOWN, convert, is_secret, shown
from towerbus.errors import ConfigError

ENVIRONMENT = "env:"
"""What a secret's value begins with that stands in the environment."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


class BridgeOptions(msgspec.Struct, frozen=True):
    """One bridge, checked.

    Attributes:
        name: Its name, which no other has.
        side: `source` or `sink`.
        kind: The source's or the sink's.
        module: The kind's module (interface.py).
        options: Its keys, as the module's `Options`.
        mapping: The source's mapping.
        topics: What the sink gets, as patterns `group/type` with `*` for a whole part.
        place: Names it in errors: file and table.
    """

    name: str
    side: str
    kind: str
    module: Any
    options: Any
    mapping: MappingOptions
    topics: tuple[str, ...]
    place: str


def read(tables: object, file: str, environment: Mapping[str, str]) -> list[BridgeOptions]:
    """Check all tables.

    Args:
        tables: What stands under `bridge` in the file.
        file: The file's path, for errors.
        environment: Where values `env:NAME` are.

    Raises:
        ConfigError: Something is not right; the text has one line for each fault: file, key, what it got, and what it
            wants.
    """
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{file}: bridge: got {shown('bridge', tables)}, wanted are tables [[bridge]]")
    faults: list[str] = []
    found: list[BridgeOptions] = []
    names: dict[str, int] = {}
    for number, table in enumerate(tables):
        place = f"{file}: bridge {_label(table.get('name'), number)}"
        try:
            found.append(_bridge(table, place, environment))
        except ConfigError as error:
            faults.append(str(error))
        name = table.get("name")
        if isinstance(name, str) and names.setdefault(name, number) != number:
            other = f"bridge number {names[name] + 1} has it too"
            faults.append(f"{place}: name: got {name!r}, wanted a name of its own: {other}")
    if faults:
        raise ConfigError("\n".join(faults))
    return found


def _label(name: object, number: int) -> str:
    return repr(name[:MAX_SHOWN]) if isinstance(name, str) and name else f"number {number + 1}"


def _bridge(table: Mapping[str, Any], place: str, environment: Mapping[str, str]) -> BridgeOptions:
    faults = list(_faults(table, place))
    sides = [side for side in ("source", "sink") if isinstance(table.get(side), dict)]
    found: dict[str, Any] = {"module": None, "options": None, "mapping": MappingOptions(), "topics": ()}
    if not faults:
        (side,) = sides
        try:
            found["module"], found["options"] = _kind(table[side], side, place, environment)
        except ConfigError as error:
            faults.append(str(error))
        # Only a source has a mapping, and only a sink topics.
        try:
            if "mapping" in table:
                found["mapping"] = convert(table["mapping"], MappingOptions, f"{place}: mapping")
            if side == "sink":
                found["topics"] = _patterns(table.get("topics", ["*"]), f"{place}: topics")
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return BridgeOptions(name=table["name"], side=side, kind=table[side]["kind"], place=place, **found)


def _faults(table: Mapping[str, Any], place: str) -> Iterator[str]:
    """What is wrong with a bridge's own keys."""
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield f"{place}: name: got {shown('name', name)}, wanted 1 to 40 letters, digits, _ and -"
    sides = [side for side in ("source", "sink") if side in table]
    if len(sides) != 1:
        yield f"{place}: got {' and '.join(sides) or 'neither'}, wanted one table: [bridge.source] or [bridge.sink]"
        return
    (side,) = sides
    allowed = {"source": ("name", "source", "mapping"), "sink": ("name", "sink", "topics")}[side]
    for key in table:
        if key not in allowed:
            yield f"{place}: {key}: there is no such key in a bridge with a {side}; there are {', '.join(allowed)}"
    if not isinstance(table[side], dict):
        yield f"{place}: {side}: got {shown(side, table[side])}, wanted a table [bridge.{side}]"


def _kind(table: Mapping[str, Any], side: str, place: str, environment: Mapping[str, str]) -> tuple[Any, Any]:
    known = kinds.SOURCES if side == "source" else kinds.SINKS
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in known:
        raise ConfigError(
            f"{place}: {side}.kind: got {shown('kind', kind)}, wanted one of {', '.join(map(repr, known))}"
        )
    try:
        module = kinds.module(known, kind)
    except ConfigError as error:
        raise ConfigError(f"{place}: {side}.kind: {error}") from error
    where = f"{place}: {side}"
    keys = {key: value for key, value in table.items() if key != "kind"}
    absent = []
    for key, name in _variables(keys):
        if name in environment:
            keys[key] = environment[name]
        else:
            absent.append(f"{where}.{key}: got {keys[key]!r}, wanted a variable that is in the environment")
    try:
        options = convert(keys, module.Options, where)
    except ConfigError as error:
        # A struct's own check may have stumbled over a value that is not the one that is meant.
        found = [line for line in str(error).splitlines() if not absent or not line.startswith(f"{where}: ")]
        raise ConfigError("\n".join(absent + found)) from error
    if absent:
        raise ConfigError("\n".join(absent))
    return module, options


def _variables(keys: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The keys whose values stand in the environment, and under which name."""
    return [
        (key, value.removeprefix(ENVIRONMENT))
        for key, value in keys.items()
        if is_secret(key) and isinstance(value, str) and value.startswith(ENVIRONMENT)
    ]


def _patterns(value: object, where: str) -> tuple[str, ...]:
    wanted = 'wanted are patterns such as "jobs/status_changed", "job_events/*" or "*"'
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{where}: got {shown('topics', value)}, {wanted}")
    for pattern in value:
        group, slash, type_ = pattern.partition("/")
        try:
            if pattern != "*":
                topics.topic("x" if group == "*" else group, "x" if type_ == "*" and slash else type_)
        except topics.TopicError as error:
            raise ConfigError(f"{where}: got {pattern!r}, {wanted} ({error})") from error
    return tuple(value)


__all__: Sequence[str] = ["BridgeOptions", "read"]
