"""NATS over WebSocket, no token check: clients subscribe in NATS's own protocol, events come in over its TCP port."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from processes import Process, free_port

from peers.language import Word, head
from peers.peer import DEFLATE, LOADS, MANY, Peer, Running
from peers.versions import said

CONFIGURATION = """
host: 127.0.0.1
port: {port}
max_connections: 20000
max_pending: 64MB
websocket {{ host: 127.0.0.1, port: {ws}, no_tls: true, compression: {compression} }}
"""
CONNECT = 'CONNECT {"verbose":false,"pedantic":false}\r\n'
ALL = "SUB jobs.status_changed 1\r\n"
OWN = "SUB job_events.@@@@@@ 2\r\n"


def start(directory: Path, compression: str = "false") -> Running:
    ws, port = free_port(), free_port()
    (directory / "nats.conf").write_text(CONFIGURATION.format(ws=ws, port=port, compression=compression))
    server = Process(["nats-server", "-c", "nats.conf"], directory, "nats")
    server.wait_for_port(ws)
    server.wait_for_port(port)
    return Running(
        server=[server],
        load={
            "framing": "nats",
            "ws_port": ws,
            "head": head(ws, "/"),
            "greetings": 1,
            "replies": 1,
            "first": f"{CONNECT}{ALL}PING\r\n",
            "first_own": f"{CONNECT}{ALL}{OWN}<<<SUB job_events.@@@@@@ @@@@@@\r\n>>>PING\r\n",
            "first_idle": f"{CONNECT}{OWN}PING\r\n",
            "next_own": f"UNSUB 2\r\n{OWN}PING\r\n",
            "next_replies": 1,
            "pub_port": port,
            "pub_suffix": "\r\n",
            "own_suffix": "\r\n",
        },
        sized=lambda size: {
            "pub_prefix": f"PUB jobs.status_changed {size}\r\n",
            "own_prefix": f"PUB job_events.@@@@@@ {size}\r\n",
        },
    )


def start_deflating(directory: Path) -> Running:
    running = start(directory, "true")
    publishing: dict[str, Word] = {"pub_prefix": "PUB jobs.status_changed ######\r\n", "own_prefix": ""}
    return replace(running, load={**running.load, **DEFLATE}, sized=lambda _: publishing)


def missing() -> str:
    return "" if shutil.which("nats-server") else "nats-server (apt-get install nats-server)"


def versions() -> dict[str, str]:
    return {"nats-server": said("nats-server", "--version")}


PEER = Peer(
    "nats",
    "NATS websocket",
    start,
    missing,
    loads=LOADS | MANY,
    ways={"deflate": start_deflating},
    versions=versions,
)
