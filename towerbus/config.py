"""The configuration: every option from the command line, the environment or a TOML file, in falling precedence.

Where systemd hands over credentials, these count more than the file and less than the environment. A mistake is named
with its file, key, what it got and what it wants, before anything listens.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from towerbus.access import Rule
from towerbus.converting import convert
from towerbus.errors import ConfigError
from towerbus.options import OPTIONS, PREFIX

CREDENTIAL = "towerbus_"
"""Before an option's key in the name of a credential."""

_OPTION = re.compile(r"--([a-z-]+)(?=[: ])")


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
        ConfigError: Some of them are not right; the text has one line for each.
    """
    path = file or environment.get(PREFIX + "CONFIG")
    table = _table(path) if path else {}
    bridge = table.pop("bridge", None)
    access = None
    mistakes: list[str] = []
    try:
        access = _rules(table.pop("access"), str(path)) if "access" in table else None
    except ConfigError as error:
        mistakes.append(str(error))
    mistakes += _unknown(table, str(path))
    values: dict[str, Any] = {}
    secrets = _credentials(environment.get("CREDENTIALS_DIRECTORY", ""))
    sources: dict[str, str] = {}
    for option in OPTIONS:
        values[option.key] = option.default
        for source, name, where in (
            (given, option.key, f"--{option.name}"),
            (environment, option.variable, option.variable),
            (secrets, option.key, f"credential {CREDENTIAL}{option.key}"),
            (table, option.key, f"{path}: {option.key}"),
        ):
            if name in source:
                sources[option.key] = where
                try:
                    values[option.key] = option.read(source[name])
                except ValueError as error:
                    mistakes.append(f"{where}: got {source[name]!r}, wanted {error}")
                break
    if mistakes:
        raise ConfigError("\n".join(mistakes))
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


def _unknown(table: Mapping[str, object], path: str) -> Iterator[str]:
    known = {"access", "bridge", *(option.key for option in OPTIONS)}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key.replace("-", "_"), known, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield f"{path}: {key}: there is no such option{meant}; there are {', '.join(sorted(known))}"


def _rules(value: object, path: str) -> tuple[Rule, ...]:
    try:
        return convert(value, tuple[Rule, ...], f"{path}: access")
    except ConfigError as error:
        raise ConfigError(
            f"{error}; an access rule is a table [[access]] with groups, types (optional) and "
            'who = "everyone", "own", "granted", "ask" or "nobody"'
        ) from error
