"""`twistd towerbus`: options and service. The other commands' taps are made of the same parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.python import usage

from towerbus.config import Settings, settings
from towerbus.errors import ConfigError
from towerbus.options import EVERYTHING, Option, options
from towerbus.steady import steady


def _collects(option: Option) -> Callable[[CommandOptions, str], None]:
    def collect(self: CommandOptions, value: str) -> None:
        self.given.setdefault(option.key, []).append(value)  # type: ignore[attr-defined]

    collect.__doc__ = option.help
    return collect


class CommandOptions(usage.Options):
    """The options of one command, which a subclass names."""

    command: ClassVar[str] = ""
    synopsis = "[options]"
    optParameters: ClassVar[list[Any]] = []

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.optParameters = [["config", "c", None, "TOML file with options, and [[access]] or [[bridge]] tables"]]
        for option in options(cls.command):
            if option.many:
                setattr(cls, f"opt_{option.key}", _collects(option))
            else:
                shown = "none" if option.default in {None, ""} else option.default
                shown = "off" if option.default is False else shown
                text = option.narrower.get(cls.command, f"{option.help} [default: {shown}]")
                cls.optParameters.append([option.name, None, None, text])

    def __init__(self) -> None:
        self.given: dict[str, object] = {}
        super().__init__()

    def parseOptions(self, options: Any = None) -> None:
        """Read the command line; what is wrong there is one line, not the whole help."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            text = str(error).rstrip(".")
            raise SystemExit(f"{self.command}: {text}; twistd {self.command} --help tells all options") from error

    def postOptions(self) -> None:
        """Check everything before anything starts."""
        for option in options(self.command):
            if not option.many and self[option.name] is not None:
                self.given[option.key] = self[option.name]
        try:
            self.settings: Settings = settings(self.given, os.environ, self["config"])
        except ConfigError as error:
            raise SystemExit(f"{self.command}: {error}") from error


def made(make: Callable[[Settings, Any], IService], given: CommandOptions) -> IService:
    """Make a command's service; a configuration that can't be carried out is a message and exit code 1."""
    from twisted.internet import reactor

    steady(reactor)
    try:
        return make(given.settings, reactor)
    except ConfigError as error:
        raise SystemExit(f"{given.command}: {given.settings.traced(str(error))}") from error


class Options(CommandOptions):
    """Everything in one process: WebSocket, HTTP and an embedded log. Nothing else is needed to try it."""

    command = EVERYTHING
    longdesc = (
        "Prints the WebSocket URL with a token, a line to paste to watch and a line to paste to emit. Every option may "
        "also stand in a TOML file (--config) or in the environment (TOWERBUS_LISTEN=...); the command line wins, then "
        "the environment."
    )


def makeService(given: Options) -> IService:
    """Make the service that twistd runs."""
    from towerbus.services import embedded

    return made(embedded, given)
