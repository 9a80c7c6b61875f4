"""Autobahn's own `sendMessage` to each client, on Twisted; events come in as lines."""

from __future__ import annotations

from pathlib import Path

from processes import Process, free_port

from peers.peer import FIRST, SERVERS, Peer, Running, peers_python

TOKEN = "bench-token"


def start(directory: Path) -> Running:
    ws, control = free_port(), free_port()
    command = [peers_python(), str(SERVERS / "sendmessage.py"), str(ws), str(control), TOKEN]
    server = Process(command, directory, "sendmessage")
    server.wait_for_port(control)
    return Running(
        server=[server],
        load=[
            *("--ws-port", str(ws), "--ws-target", f"/websocket/?token={TOKEN}", "--greetings", "1"),
            *("--first", FIRST, "--replies", "1", "--pub-port", str(control)),
        ],
    )


PEER = Peer("sendmessage", "autobahn sendMessage", start, events=0.25)
