"""uWebSockets through socketify: its own topics; the publisher has a WebSocket of its own."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

from processes import Process, free_port

from peers.language import TOWER, Word, head
from peers.peer import DEFLATE, LOADS, MANY, SERVERS, Peer, Running, peers_python, python_missing
from peers.versions import of_python

TOKEN = "bench-token"
HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
)
ALL = b"jobs-status_changed "
OWN = b"job_events-@@@@@@ "


def start(directory: Path, *more: str) -> Running:
    ws = free_port()
    command = [peers_python(), str(SERVERS / "socketify_server.py"), str(ws), *more]
    server = Process(command, directory, "socketify", {"BENCH_TOKEN": TOKEN})
    server.wait_for_port(ws)
    return Running(
        server=[server],
        load={
            **TOWER,
            "ws_port": ws,
            "head": head(ws, f"/websocket/?token={TOKEN}"),
            "greetings": 1,
            "pub_port": ws,
            "pub_hello": head(ws, f"/publish?token={TOKEN}") + HANDSHAKE,
        },
        sized=lambda size: {"pub_prefix": frame(ALL, size), "own_prefix": frame(OWN, size)},
    )


def start_deflating(directory: Path) -> Running:
    running = start(directory, "deflate")
    publishing: dict[str, Word] = {"pub_frames": True, "pub_prefix": ALL, "own_prefix": OWN}
    return replace(running, load={**running.load, **DEFLATE}, sized=lambda _: publishing)


def frame(topic: bytes, size: int) -> bytes:
    """The beginning of a text frame (RFC 6455, section 5.2) with a topic and so many bytes; the mask is zeros."""
    return b"\x81\xfe" + (len(topic) + size).to_bytes(2, "big") + bytes(4) + topic


def missing() -> str:
    if fault := python_missing():
        return fault
    tried = subprocess.run([peers_python(), "-c", "import socketify"], capture_output=True, text=True, check=False)
    return f"socketify for this machine: {tried.stderr.strip().splitlines()[-1:]}" if tried.returncode else ""


PEER = Peer(
    "uwebsockets",
    "uWebSockets (socketify)",
    start,
    missing,
    loads=(LOADS | MANY) - {"topics"},
    ways={"deflate": start_deflating},
    versions=partial(of_python, "socketify"),
)
