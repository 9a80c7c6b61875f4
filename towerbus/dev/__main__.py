"""`make dev`: supervisord in the foreground, with all that runs while towerbus is worked on."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import click
from twisted.internet.address import IPv4Address

import towerbus
from towerbus.auth.jwt import mint
from towerbus.config import Settings, settings
from towerbus.dev import state
from towerbus.errors import ConfigError
from towerbus.welcome import command, lines, place

WEBSOCKET, HTTP = 8051, 8052
"""The ports that the shipped files of nginx lead to."""
PLAIN, SECURE = 8013, 8043
"""The ports on which they listen for development, as Tower's do."""


@click.command()
@click.option("--http-port", default=PLAIN, show_default=True, help="Where nginx speaks HTTP.")
@click.option("--https-port", default=SECURE, show_default=True, help="Where nginx speaks HTTPS.")
@click.option("--state", "directory", default=".venv/dev", show_default=True, help="Where keys, logs and sockets go.")
def main(http_port: int, https_port: int, directory: str) -> None:
    """Run towerbus for development: supervisord in the foreground, nginx, and restarts when a Python file changes.

    TOWERBUS_BUS=amqp://... runs server, worker and bridge on that RabbitMQ; without it one process does everything, on
    an embedded log that outlives restarts. All options of towerbus may stand in the environment. Ctrl-C ends it.
    """
    etc = Path(towerbus.__file__).resolve().parents[1] / "etc"
    shipped = etc / "supervisor" / "development.conf"
    if not shipped.exists():
        raise click.ClickException(f"{shipped} is not there: this runs from a checkout of towerbus only")
    place_ = Path(directory).resolve()
    place_.mkdir(parents=True, exist_ok=True)
    environment, configured, token = prepared(os.environ, place_)
    web = _nginx(etc / "nginx", place_ / "nginx", configured, {PLAIN: http_port, SECURE: https_port})
    bridges = _bridges(configured, place_)
    _tell(configured, token, place_, (http_port, https_port) if web else None)
    if _has_broker(configured):
        environment["TOWERBUS_BUS"] = configured.bus  # the bridges' file may be another than the one that names it
    environment |= {
        "TOWERBUS_DEV_BIN": str(Path(sys.executable).parent),
        "TOWERBUS_DEV_STATE": str(place_),
        "TOWERBUS_DEV_BUS": "rabbitmq" if _has_broker(configured) else "embedded",
        "TOWERBUS_DEV_WEB": "nginx" if web else "nothing",
        "TOWERBUS_DEV_NGINX": web or "",
        "TOWERBUS_DEV_USER": getpass.getuser(),
        "TOWERBUS_DEV_BRIDGES": bridges,
    }
    sys.stdout.flush()
    words = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(shipped)]
    os.execve(sys.executable, words, environment)  # noqa: S606 - our own interpreter


class Prepared(NamedTuple):
    """What the processes start with.

    Attributes:
        environment: Their environment.
        configured: What it comes to.
        token: A token for everything; a placeholder where tokens are made elsewhere.
    """

    environment: dict[str, str]
    configured: Settings
    token: str


def prepared(given: Mapping[str, str], directory: Path) -> Prepared:
    """Fill up the environment: a log that outlives restarts, and tokens that do.

    Args:
        given: The environment of `make dev`.
        directory: Where its files go.

    Raises:
        ConfigError: What is configured there is not right.
    """
    environment, token = dict(given), "TOKEN"
    configured = settings({}, environment)
    if configured.bus == "memory:" and "TOWERBUS_BUS" not in environment:
        environment["TOWERBUS_BUS"] = f"sqlite:{directory / 'log.db'}"
    if not configured.auth:
        key = state.key(directory / "key")
        environment["TOWERBUS_AUTH"] = f"jwt:{key}"
        token = mint(str(key), user="1", name="developer", subscribe=("*",), emit=("*",))
    return Prepared(environment, settings({}, environment), token)


def _nginx(shipped: Path, directory: Path, configured: Settings, ports: Mapping[int, int]) -> str | None:
    """Prepare nginx; its path, or None where it is left out, which is told."""
    found = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    websocket, http = _port(configured.listen), _port(configured.http)
    if found is None:
        click.echo("nginx is not installed, so it is left out: apt-get install nginx-light")
    elif websocket is None or http is None:
        click.echo("nginx is left out: --listen and --http are not tcp:PORT, to which its files lead")
    else:
        state.nginx(shipped, directory, {**ports, WEBSOCKET: websocket, HTTP: http})
        return found
    return None


def _bridges(configured: Settings, directory: Path) -> str:
    """The file with the bridges that run: the developer's own, or one that takes events on a Unix socket."""
    if not _has_broker(configured):
        if configured.bridge is not None:
            click.echo(f"the bridges in {configured.file} are left out: they need RabbitMQ, BUS=amqp://...")
        return ""
    if configured.bridge is not None:
        return configured.file
    path = state.bridges(directory)
    post = """-d '{"group": "jobs", "type": "status_changed", "payload": {"unified_job_id": 1}}'"""
    click.echo(f"through a bridge: curl --unix-socket {directory}/emit.sock http://localhost/emit {post}")
    return str(path)


def _port(endpoint: str) -> int | None:
    found = re.match(r"tcp:(?:port=)?(\d+)(?::|$)", endpoint)
    return int(found[1]) if found else None


def _has_broker(configured: Settings) -> bool:
    return configured.bus.startswith(("amqp:", "amqps:"))


def _tell(configured: Settings, token: str, directory: Path, ports: tuple[int, int] | None) -> None:
    """Say where what is, with lines to paste."""
    websocket, http = (
        place(endpoint, IPv4Address("TCP", "127.0.0.1", _port(endpoint) or 0))
        for endpoint in (configured.listen, configured.http)
    )
    for line in lines(websocket, http, configured.path[0], token, command()):
        click.echo(line)
    if ports is not None:
        path = f"{configured.path[0]}?token={token}"
        click.echo(f"through nginx: ws://127.0.0.1:{ports[0]}{path} and wss://127.0.0.1:{ports[1]}{path}")
    program = Path(sys.executable).with_name("supervisorctl")
    click.echo(f"{program} -s unix://{directory}/supervisor.sock status")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"make dev: {error}")
