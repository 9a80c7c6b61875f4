"""`towerbus doctor`: looks at a configuration and its broker, or the file of its log."""

from __future__ import annotations

import os
import re
import resource
import sys
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
from towerbus.urls import shown

WINDOW = 3600.0
"""Seconds for which coming back without loss is promised, where nothing else is said."""
_CHANGE = "change it: twistd towerbus --help and etc/towerbus.toml describe each option"
_COLOURS = {Level.OK: "green", Level.NOTE: "blue", Level.WARNING: "yellow", Level.ERROR: "red"}


@click.command()
@click.option("--config", "file", metavar="FILE", help="Configuration file [$TOWERBUS_CONFIG].")
@click.option("--bus", metavar="URL", help="The broker, amqp://USER:PASSWORD@HOST/VHOST; rather set TOWERBUS_BUS.")
@click.option(
    "--management", default="", metavar="URL", help="The broker's management API [default: its host, port 15672]."
)
@click.option(
    "--window",
    type=click.FloatRange(1),
    default=WINDOW,
    show_default=True,
    help="Seconds after which a client must still be able to come back without loss.",
)
@click.option("--json", "raw", is_flag=True, help="Print the findings as one JSON array.")
def doctor(file: str | None, bus: str | None, management: str, window: float, raw: bool) -> None:  # noqa: FBT001
    """Look at the configuration, the bus, the bridges and this machine, and say how to mend what is wrong.

    Changes nothing. Exit code 0 when nothing is an error, 1 when something is.

    \b
    towerbus doctor --config /etc/towerbus/towerbus.toml
    TOWERBUS_BUS=amqp://tower:secret@rabbit/tower towerbus doctor --window 7200
    """  # noqa: D301 - click's mark
    found = examine(file, bus, management, window)
    if raw:
        click.echo(msgspec.json.encode(found))
    else:
        for finding in found:
            _show(finding)
    sys.exit(1 if any(finding.level is Level.ERROR for finding in found) else 0)


def examine(file: str | None, bus: str | None, management: str, window: float) -> list[Finding]:
    """Look at everything.

    Args:
        file: The configuration file, if one is given.
        bus: The bus's URL, if it is given on the command line.
        management: The management API's URL; empty for where it usually is.
        window: Seconds for which coming back without loss was promised.
    """
    try:
        configured = settings({"bus": bus} if bus else {}, os.environ, file)
    except ConfigError as error:
        return [findings.error("configuration", str(error), _CHANGE)]
    found = _configuration(configured)
    found += files.look(configured.file, configured.auth, [configured.listen, configured.http])
    try:
        bridges = _bridges(configured)
    except ConfigError as error:
        bridges = []
        found += [findings.error("configuration", line, _CHANGE) for line in str(error).splitlines()]
    found.append(findings.open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)))
    if configured.bus.startswith(("amqp:", "amqps:")):
        return found + _bus(configured, management, window, bridges)
    if bridges:
        text = f"bridges need RabbitMQ as the bus, and --bus is {shown(configured.bus)}"
        found.append(findings.error("configuration", text, "give --bus amqp://... to twistd towerbus-bridge"))
    if configured.bus != "memory:" and not re.match("sqlite:.", configured.bus):
        wanted = ", wanted sqlite:PATH" if configured.bus == "sqlite:" else ""
        text = configured.traced(f"--bus: got {shown(configured.bus)}{wanted}")
        found.append(findings.error("configuration", text, "wanted is memory:, sqlite:PATH, amqp://... or amqps://..."))
    elif configured.bus.startswith("sqlite:"):
        found += _file(configured, window)
    else:
        found.append(findings.ok("bus", "memory: is gone with its process: there is nothing to look at"))
    return found


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
    if not configured.auth and configured.bus.startswith(("amqp:", "amqps:")):
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
