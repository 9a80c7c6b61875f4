"""Autobahn's own `sendMessage` to each client, on Twisted; events come in as lines."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from processes import Process, free_port

from peers.language import TOWER, head
from peers.peer import DEFLATE, SERVERS, Peer, Running, peers_python, python_missing
from peers.versions import of_python

TOKEN = "bench-token"


def start(directory: Path, *more: str) -> Running:
    ws, control = free_port(), free_port()
    command = [peers_python(), str(SERVERS / "sendmessage.py"), str(ws), str(control), TOKEN, *more]
    server = Process(command, directory, "sendmessage")
    server.wait_for_port(control)
    return Running(
        server=[server],
        load={
            **TOWER,
            "ws_port": ws,
            "head": head(ws, f"/websocket/?token={TOKEN}"),
            "greetings": 1,
            "pub_port": control,
            "pub_suffix": "\n",
        },
    )


def start_deflating(directory: Path) -> Running:
    running = start(directory, "deflate")
    return replace(running, load={**running.load, **DEFLATE})


PEER = Peer(
    "sendmessage",
    "autobahn sendMessage",
    start,
    python_missing,
    0.25,
    frozenset({"topic", "storm"}),
    {"deflate": start_deflating},
    versions=partial(of_python, "autobahn", "Twisted"),
)
