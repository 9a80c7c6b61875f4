"""The floor: a C program that does nothing but `send()`: for each event and client, or for each burst and client."""

from __future__ import annotations

from pathlib import Path

from generator import FLAGS, compiled
from processes import Process, free_port

from peers.language import head
from peers.peer import SERVERS, Peer, Running
from peers.versions import NOT_KNOWN, first_line


def start(directory: Path, *options: str) -> Running:
    ws, control = free_port(), free_port()
    command = [str(compiled(SERVERS / "floor.c")), str(ws), str(control), *options]
    server = Process(command, directory, "floor")
    server.wait_for_port(control)
    return Running(
        server=[server], load={"ws_port": ws, "head": head(ws, "/"), "pub_port": control, "pub_suffix": "\n"}
    )


def start_joined(directory: Path) -> Running:
    return start(directory, "joined")


def versions() -> dict[str, str]:
    return {"compiler": first_line("cc", "--version") or NOT_KNOWN, "flags": " ".join(FLAGS)}


PEER = Peer("floor", "C floor, send() per event", start, loads=frozenset({"topic", "pace"}), versions=versions)
JOINED = Peer("floor-joined", "C floor, send() per burst", start_joined, loads=frozenset({"topic"}), versions=versions)
