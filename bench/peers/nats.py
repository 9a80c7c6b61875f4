"""NATS over WebSocket, no token check: clients subscribe in NATS's own protocol, events come in over its TCP port."""

from __future__ import annotations

import shutil
from pathlib import Path

from processes import Process, free_port

from peers.peer import Peer, Running

CONFIGURATION = """
host: 127.0.0.1
port: {port}
max_connections: 20000
max_pending: 64MB
websocket {{ host: 127.0.0.1, port: {ws}, no_tls: true, compression: false }}
"""
CONNECT = 'CONNECT {"verbose":false,"pedantic":false}\r\n'


def start(directory: Path) -> Running:
    ws, port = free_port(), free_port()
    (directory / "nats.conf").write_text(CONFIGURATION.format(ws=ws, port=port))
    server = Process(["nats-server", "-c", "nats.conf"], directory, "nats")
    server.wait_for_port(ws)
    server.wait_for_port(port)
    return Running(
        server=[server],
        load=[
            *("--ws-port", str(ws), "--greetings", "1", "--inside", "--replies", "1"),
            *("--first", f"{CONNECT}SUB jobs 1\r\nPING\r\n"),
            *("--pub-port", str(port), "--pub-prefix", "PUB jobs 300\r\n", "--pub-suffix", "\r\n"),
        ],
    )


def missing() -> str:
    return "" if shutil.which("nats-server") else "nats-server (apt-get install nats-server)"


PEER = Peer("nats", "NATS websocket", start, missing)
