"""`towerbus doctor`: looks at a configuration and its broker, or the file of its log."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from towerbus.access import AccessRules
from towerbus.config import Settings, settings
from towerbus.doctor import files, findings
from towerbus.doctor.findings import Finding, Level
from towerbus.endpoints import shared_port
from towerbus.errors import ConfigError, TowerbusError
from towerbus.options import BRIDGE, SERVER, options
from towerbus.urls import shown

WINDOW = 3600.0
"""Seconds for which coming back without loss is promised, where nothing else is said."""
_CHANGE = "change it: twistd towerbus --help and etc/towerbus.toml describe each option"
_CHANGE_BRIDGE = "change it: docs/bridges.md describes each key, and what each kind needs"
_COLOURS = {Level.OK: "green", Level.NOTE: "blue", Level.WARNING: "yellow", Level.ERROR: "red"}


@click.command()
@click.option("--config", "file", metavar="FILE", help="Configuration file [$TOWERBUS_CONFIG].")
@click.option("--bus", metavar="URL", help="The broker, amqp://USER:PASSWORD@HOST/VHOST; rather set TOWERBUS_BUS.")
@click.option(
    "--management", default="", metavar="URL", help="The broker's management API [default: its host, port 15672]."
)
@click.option(
    "--bridge-state", metavar="PATH", help="Directory where bridges keep spools and positions [$TOWERBUS_BRIDGE_STATE]."
)
@click.option(
    "--window",
    type=click.FloatRange(1),
    default=WINDOW,
    show_default=True,
    help="Seconds after which a client must still be able to come back without loss.",
)
@click.option("--json", "raw", is_flag=True, help="Print the findings as one JSON array.")
def doctor(
    file: str | None,
    bus: str | None,
    management: str,
    bridge_state: str | None,
    window: float,
    raw: bool,  # noqa: FBT001
) -> None:
    """Look at the configuration, the bus, the bridges and this machine, and say how to mend what is wrong.

    Changes nothing. Exit code 0 when nothing is an error, 1 when something is.

    \b
    towerbus doctor --config /etc/towerbus/towerbus.toml
    TOWERBUS_BUS=amqp://tower:secret@rabbit/tower towerbus doctor --window 7200
    """  # noqa: D301 - click's mark
    given = {"bus": bus, "bridge_state": bridge_state}
    found = examine(file, {key: value for key, value in given.items() if value}, management, window)
    if raw:
        click.echo(msgspec.json.encode(found))
    else:
        for finding in found:
            _show(finding)
    sys.exit(1 if any(finding.level is Level.ERROR for finding in found) else 0)


def examine(file: str | None, given: Mapping[str, str], management: str, window: float) -> list[Finding]:
    """Look at everything.

    Args:
        file: The configuration file, if one is given.
        given: Options of the command line, by key.
        management: The management API's URL; empty for where it usually is.
        window: Seconds for which coming back without loss was promised.
    """
    try:
        configured = settings(given, os.environ, file)
    except ConfigError as error:
        return _each(error, _CHANGE)
    found = _configuration(configured)
    found += files.look(configured.file, configured.auth, [configured.listen, configured.http])
    try:
        bridges = _bridges(configured)
    except ConfigError as error:
        bridges = []
        found += _each(error, _CHANGE_BRIDGE)
    found.append(findings.open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)))
    if configured.bus.startswith(("amqp:", "amqps:")):
        return found + _bus(configured, management, window, bridges)
    if configured.bridge is not None:
        bus = f"--bus is {shown(configured.bus)}" if "bus" in configured.sources else "no --bus is given"
        text = f"bridges need RabbitMQ as the bus, and {bus}"
        found.append(findings.error("configuration", text, "set TOWERBUS_BUS=amqp://..., or give --bus"))
    if configured.bus != "memory:" and not re.match("sqlite:.", configured.bus):
        wanted = ", wanted sqlite:PATH" if configured.bus == "sqlite:" else ""
        text = configured.traced(f"--bus: got {shown(configured.bus)}{wanted}")
        found.append(findings.error("configuration", text, "wanted is memory:, sqlite:PATH, amqp://... or amqps://..."))
    elif configured.bus.startswith("sqlite:"):
        found += _file(configured, window)
    else:
        found.append(findings.ok("bus", "memory: is gone with its process: there is nothing to look at"))
    return found


def _each(error: ConfigError, mend: str) -> list[Finding]:
    """A finding for each line of an error."""
    return [findings.error("configuration", line, mend) for line in str(error).splitlines()]


def _of_bridges_alone(configured: Settings) -> bool:
    """Whether a configuration is a bridge's and no server's: it has bridges, and nothing that only a server reads."""
    own = {option.key for option in options(SERVER)} - {option.key for option in options(BRIDGE)}
    return configured.bridge is not None and configured.access is None and own.isdisjoint(configured.sources)


def _configuration(configured: Settings) -> list[Finding]:
    """Look at what would be read at start: keys, token files, rules."""
    from twisted.internet.protocol import Factory
    from twisted.internet.task import Clock

    from towerbus.auth.chain import authenticator
    from towerbus.auth.oracle import AccessOracle
    from towerbus.listening import Listener

    found = []
    # Nothing listens and nothing is asked while it is only made: no reactor has to run.
    for make in (
        lambda: AccessRules(configured.access, ask=bool(configured.ask_url)),
        lambda: AccessOracle(configured.ask_url, Clock()) if configured.ask_url else None,
        lambda: authenticator(configured.auth, Clock()),
        lambda: Listener(Clock(), configured.listen, Factory(), "--listen"),
        lambda: Listener(Clock(), configured.http, Factory(), "--http"),
    ):
        try:
            make()
        except TowerbusError as error:
            found.append(findings.error("configuration", configured.traced(str(error)), _CHANGE))
    if shared := shared_port(configured.listen, configured.http):
        said = f"--http: {configured.http!r} has the port {shared} of --listen, {configured.listen!r}"
        text = configured.traced(said)
        found.append(findings.error("configuration", text, "give one of them another port"))
    if not configured.auth and configured.bus.startswith(("amqp:", "amqps:")) and not _of_bridges_alone(configured):
        text = "no --auth: a separate server lets nobody in without one"
        found.append(findings.warning("configuration", text, "give --auth jwt:PATH or another"))
    return found or [findings.ok("configuration", "it can be carried out")]


def _file(configured: Settings, window: float) -> list[Finding]:
    from towerbus.doctor.sqlite import look
    from towerbus.log.sqlite import SQLITE_AGE, SQLITE_BYTES

    return look(
        Path(configured.bus.partition(":")[2]).expanduser().absolute(),
        max_bytes=configured.log_max_bytes or SQLITE_BYTES,
        max_age=configured.log_max_age or SQLITE_AGE,
        window=window,
    )


def _bridges(configured: Settings) -> list[Any]:
    """The bridges of the configuration."""
    if configured.bridge is None:
        return []
    from towerbus.bridge.configuration import read

    return list(read(configured.bridge, configured.file, os.environ))


def _bus(configured: Settings, management: str, window: float, bridges: list[Any]) -> list[Finding]:
    from towerbus.amqp import url
    from towerbus.doctor.management import Management

    try:
        broker = url.parse(configured.bus)
    except ConfigError as error:
        return [findings.error("configuration", configured.traced(f"--bus: {error}"), _CHANGE)]
    try:
        api = Management(broker, management)
    except ConfigError as error:
        return [findings.error("configuration", configured.traced(str(error)), _CHANGE)]
    seen, of_bridges = _through_amqp(broker, configured, window, bridges)
    if seen[0].level is Level.ERROR:
        return seen + of_bridges
    from towerbus.amqp.topology import Names

    names = Names(broker.prefix)
    return seen + api.look((names.intake, names.log, names.dead), names.intake) + of_bridges


def _through_amqp(
    broker: Any, configured: Settings, window: float, bridges: list[Any]
) -> tuple[list[Finding], list[Finding]]:
    """Look at the bus and at what bridges connect to: a reactor runs only once.

    Returns:
        What was seen of the bus, and of the bridges.
    """
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    from towerbus.amqp.doctor import look
    from towerbus.amqp.topology import limits
    from towerbus.bridge.doctor import look as look_at_bridges

    seen: list[Finding] = []
    of_bridges: list[Finding] = []

    async def run() -> None:
        seen.extend(await look(broker, limits(configured), window, reactor))
        of_bridges.extend(await look_at_bridges(bridges, configured, reactor))

    try:
        react(lambda _: Deferred.fromCoroutine(run()))
    except SystemExit as end:
        if end.code:
            raise TowerbusError("the look at the broker failed") from None
    return seen, of_bridges


def _show(finding: Finding) -> None:
    level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
    click.echo(f"{level}{finding.check}: {finding.text}")
    if finding.mend:
        click.echo(f"{'':8}-> {finding.mend}")
