"""towerbus, everything in one process on the embedded log, as `twistd towerbus` starts it without options."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from processes import Process, free_port

from peers.language import TOWER, TOWERBUS_V1, Word, head
from peers.peer import DEFLATE, LOADS, MANY, Peer, Running
from peers.versions import of_ours

COMPRESSION = ("--compression", "on")
"""Off by default."""


def start(directory: Path, dialect: str = "tower", *more: str) -> Running:
    ws, http = free_port(), free_port()
    command = [
        str(Path(sys.executable).parent / "twistd"),
        *("-n", "--pidfile=", "towerbus"),
        *("--listen", f"tcp:{ws}:interface=127.0.0.1", "--http", f"tcp:{http}:interface=127.0.0.1"),
        *more,
    ]
    server = Process(command, directory, "towerbus")
    url = urlsplit(server.wait_for_word("ws://"))
    server.wait_for_port(http)
    token = parse_qs(url.query)["token"][0]
    return Running(server=[server], load=load(ws, f"{url.path}?{url.query}", http, token, dialect))


def start_resuming(directory: Path) -> Running:
    return start(directory, "towerbus.v1")


def start_deflating(directory: Path) -> Running:
    running = start(directory, "tower", *COMPRESSION)
    return replace(running, load={**running.load, **DEFLATE})


def load(ws: int, target: str, http: int, token: str, dialect: str) -> dict[str, Word]:
    """What the load generator has to know of a server of ours: ports, the WebSocket's target, a token, the dialect."""
    emit = f"POST /emit HTTP/1.1\r\nHost: 127.0.0.1:{http}\r\nAuthorization: Bearer {token}\r\n"
    return {
        **TOWER,
        **(TOWERBUS_V1 if dialect == "towerbus.v1" else {}),
        "ws_port": ws,
        "head": head(ws, target, f"Sec-WebSocket-Protocol: {dialect}"),
        "greetings": 1,
        "pub_port": http,
        "batch": True,
        "pub_head": emit,
        "pub_prefix": '{"group":"jobs","type":"status_changed","payload":',
        "pub_suffix": "}\n",
        "own_head": emit,
        "own_prefix": '{"group":"job_events","type":"@@@@@@","payload":',
        "own_suffix": "}\n",
    }


def versions() -> dict[str, str]:
    return of_ours("towerbus", "Twisted", "autobahn", "pika")


PEER = Peer(
    "towerbus",
    "towerbus, embedded log",
    start,
    loads=LOADS | MANY,
    ways={"storm": start_resuming, "deflate": start_deflating},
    versions=versions,
)
