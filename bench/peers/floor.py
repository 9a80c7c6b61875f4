"""The floor: a C program that does nothing but one send() for each event and client."""

from __future__ import annotations

from pathlib import Path

from generator import compiled
from processes import Process, free_port

from peers.peer import SERVERS, Peer, Running


def start(directory: Path) -> Running:
    ws, control = free_port(), free_port()
    server = Process([str(compiled(SERVERS / "floor.c")), str(ws), str(control)], directory, "floor")
    server.wait_for_port(control)
    return Running(server=[server], load=["--ws-port", str(ws), "--pub-port", str(control)])


PEER = Peer("floor", "C floor, send() per event", start)
