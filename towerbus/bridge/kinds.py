"""The kinds of sources and sinks, and their modules. A module is imported only where a bridge is of its kind."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from towerbus.errors import ConfigError

SOURCES = {
    "amqp": "towerbus.bridge.sources.amqp",
    "http": "towerbus.bridge.sources.http",
    "postgres": "towerbus.bridge.sources.postgres",
    "awx-relay": "towerbus.bridge.sources.awx_relay",
}
SINKS = {
    "amqp": "towerbus.bridge.sinks.amqp",
    "webhook": "towerbus.bridge.sinks.webhook",
}


def module(kinds: dict[str, str], kind: str) -> Any:
    """A kind's module: it has `Options`, `make` and `look` (interface.py).

    Args:
        kinds: `SOURCES` or `SINKS`.
        kind: One of them.

    Raises:
        ConfigError: A package is missing that it needs.
    """
    try:
        return import_module(kinds[kind])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "towerbus":
            raise
        raise ConfigError(
            f"kind {kind!r} needs the package {error.name}, which is not installed: "
            f"pip install 'towerbus[{kind.replace('_', '-')}]'"
        ) from error
