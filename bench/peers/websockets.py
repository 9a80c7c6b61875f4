"""The Python package `websockets`: its `broadcast()` on asyncio; events as lines over TCP."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from processes import Process, free_port

from peers.language import LINES, TOWER, head
from peers.peer import DEFLATE, LOADS, SERVERS, Peer, Running, peers_python, python_missing
from peers.versions import of_python

TOKEN = "bench-token"


def start(directory: Path, *more: str) -> Running:
    ws, control = free_port(), free_port()
    command = [peers_python(), str(SERVERS / "websockets_server.py"), str(ws), str(control), *more]
    server = Process(command, directory, "websockets", {"BENCH_TOKEN": TOKEN})
    server.wait_for_port(ws)
    server.wait_for_port(control)
    return Running(
        server=[server],
        load={
            **TOWER,
            **LINES,
            "ws_port": ws,
            "head": head(ws, f"/websocket/?token={TOKEN}"),
            "greetings": 1,
            "pub_port": control,
        },
    )


def start_deflating(directory: Path) -> Running:
    running = start(directory, "deflate")
    return replace(running, load={**running.load, **DEFLATE})


PEER = Peer(
    "websockets",
    "python websockets broadcast",
    start,
    python_missing,
    loads=LOADS - {"pace", "slow", "idle", "topics"},
    ways={"deflate": start_deflating},
    versions=partial(of_python, "websockets"),
)
