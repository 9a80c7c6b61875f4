"""`twistd towerbus`: options and service."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.application.service import IService
from twisted.python import usage

from towerbus.config import OPTIONS, Option, Settings, settings
from towerbus.errors import ConfigError


def _collects(option: Option) -> Callable[[Options, str], None]:
    def collect(self: Options, value: str) -> None:
        self.given.setdefault(option.key, []).append(value)  # type: ignore[attr-defined]

    collect.__doc__ = option.help
    return collect


class Options(usage.Options):
    """Everything in one process: WebSocket, HTTP and an embedded log. Nothing else is needed to try it."""

    synopsis = "[options]"
    longdesc = (
        "Prints the WebSocket URL with a token, a line to paste to watch and a line to paste to emit. Every option may "
        "also stand in a TOML file (--config) or in the environment (TOWERBUS_LISTEN=...); the command line wins, then "
        "the environment."
    )
    optParameters = [  # noqa: RUF012 - Twisted's form
        ["config", "c", None, "TOML file with options and [[access]] rules"],
        *(
            [option.name, None, None, f"{option.help} [default: {option.default or 'none'}]"]
            for option in OPTIONS
            if not option.many
        ),
    ]

    def __init__(self) -> None:
        self.given: dict[str, object] = {}
        super().__init__()

    def postOptions(self) -> None:
        """Check everything before anything starts."""
        for option in OPTIONS:
            if not option.many and self[option.name] is not None:
                self.given[option.key] = self[option.name]
        try:
            self.settings: Settings = settings(self.given, os.environ, self["config"])
        except ConfigError as error:
            raise usage.UsageError(str(error)) from error


for _option in OPTIONS:
    if _option.many:
        setattr(Options, f"opt_{_option.key}", _collects(_option))


def makeService(options: Options) -> IService:
    """Make the service that twistd runs; a configuration that can't be carried out is a message and exit code 1."""
    from twisted.internet import reactor

    from towerbus.services import embedded

    try:
        return embedded(options.settings, reactor)
    except ConfigError as error:
        raise SystemExit(f"towerbus: {error}") from error
