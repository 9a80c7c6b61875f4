"""towerbus as separate processes: `twistd towerbus-server`, `twistd towerbus-worker` and a RabbitMQ of its own."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from processes import Process, free_port

from peers import rabbitmq, towerbus
from peers.peer import DEFLATE, LOADS, MANY, Peer, Running
from peers.rabbitmq import Node, missing
from peers.towerbus import COMPRESSION, load

BIN = Path(sys.executable).parent


def start(directory: Path, dialect: str = "tower", *more: str) -> Running:
    node = Node()
    started: list[Process] = []
    try:
        return _started(directory, node, started, dialect, more)
    except BaseException:
        for each in (*started, node):
            each.stop()
        raise


def start_resuming(directory: Path) -> Running:
    return start(directory, "towerbus.v1")


def start_deflating(directory: Path) -> Running:
    running = start(directory, "tower", *COMPRESSION)
    return replace(running, load={**running.load, **DEFLATE})


def _started(directory: Path, node: Node, started: list[Process], dialect: str, more: Sequence[str]) -> Running:
    key = directory / "key"
    key.write_text(secrets.token_urlsafe(32))
    token = subprocess.run(
        [BIN / "towerbus", "token", "--key", key, "--user", "bench", "--subscribe", "*", "--emit", "*"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    ws, http = free_port(), free_port()
    twistd, bus = [str(BIN / "twistd"), "-n", "--pidfile="], {"TOWERBUS_BUS": node.url}
    worker = Process([*twistd, "towerbus-worker"], directory, "worker", bus)
    started.append(worker)
    listening = ["--listen", f"tcp:{ws}:interface=127.0.0.1", "--http", f"tcp:{http}:interface=127.0.0.1"]
    server = Process([*twistd, "towerbus-server", "--auth", f"jwt:{key}", *listening, *more], directory, "server", bus)
    started.append(server)
    server.wait_for_port(ws)
    server.wait_for_port(http)
    target = f"/websocket/?token={token}"
    # Worker and broker hear nothing of a client, and a broker's memory comes and goes by more than a thousand take.
    return Running(
        server=[server, worker, node],
        load=load(ws, target, http, token, dialect),
        within={"worker": worker, "broker": node},
        holding=[server],
    )


def versions() -> dict[str, str]:
    return {**towerbus.versions(), **rabbitmq.versions()}


PEER = Peer(
    "towerbus-rabbitmq",
    "towerbus, RabbitMQ",
    start,
    missing,
    loads=LOADS | MANY,
    ways={"storm": start_resuming, "deflate": start_deflating},
    versions=versions,
)
