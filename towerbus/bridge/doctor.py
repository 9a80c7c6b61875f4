"""The doctor's look at the bridges: each kind looks at its own foreign system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut

from towerbus.bridge.configuration import BridgeOptions
from towerbus.bridge.interface import Surroundings
from towerbus.config import Settings
from towerbus.doctor import findings
from towerbus.doctor.findings import Finding
from towerbus.errors import ConfigError

_CHANGE = "change it: docs/bridges.md describes each key"
_NEEDS = "docs/bridges.md says what this kind needs of the system that it connects to"

SECONDS = 15.0
"""Seconds that the look at one bridge may take."""


async def look(configured: Sequence[BridgeOptions], settings: Settings, reactor: Any) -> list[Finding]:
    """Look at each bridge; a look that fails is a finding of its own.

    Args:
        configured: The bridges.
        settings: The options that go with them.
        reactor: Connects, and tells the time.
    """
    found: list[Finding] = []
    for options in configured:
        check = f"bridge {options.name}"
        try:
            seen = await Deferred.fromCoroutine(_look(options, settings, reactor)).addTimeout(SECONDS, reactor)
        except ConfigError as error:
            found.append(findings.error(check, f"{options.place}: {options.side}: {error}", _CHANGE))
        except TimedOut:
            text = f"the {options.kind} {options.side} does not answer within {SECONDS:g} s"
            found.append(findings.error(check, text, "see that what it connects to runs and can be reached from here"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            text = f"the {options.kind} {options.side} can't be looked at: {error or type(error).__name__}"
            found.append(findings.error(check, text, _NEEDS))
        else:
            found += [Finding(check, each.level, each.text, each.mend) for each in seen]
    return found


async def _look(options: BridgeOptions, settings: Settings, reactor: Any) -> Sequence[Finding]:
    state = Path(settings.bridge_state) if settings.bridge_state else None
    directory = None if state is None else state / options.name
    around = Surroundings(options.name, reactor, directory, settings.max_payload)
    options.module.make(options.options, around)
    if options.side == "sink":
        around.needed_directory("the position of a sink is kept")
    seen: Sequence[Finding] = await options.module.look(options.options, around)
    return seen
