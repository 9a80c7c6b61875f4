"""Node: the package `ws` with a loop over its clients, and Socket.IO with rooms; events as lines over TCP."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from processes import Process, free_port

from peers.language import LINES, TOWER, Word, head
from peers.peer import DEFLATE, LOADS, SERVERS, Peer, Running, node_missing, node_modules
from peers.versions import of_node

TOKEN = "bench-token"


def start_ws(directory: Path) -> Running:
    return start(directory, "ws.js", f"/websocket/?token={TOKEN}", {"greetings": 1})


def start_socket_io(directory: Path) -> Running:
    said = {name: f'42["groups",{word}]' for name, word in TOWER.items() if isinstance(word, str)}
    target = f"/socket.io/?EIO=4&transport=websocket&token={TOKEN}"
    # Two greetings: engine.io's own, and Socket.IO's for the namespace that "40" asks for.
    return start(directory, "socketio.js", target, {"framing": "engine.io", "hello": "40", "greetings": 2, **said})


def start_ws_deflating(directory: Path) -> Running:
    return start(directory, "ws.js", f"/websocket/?token={TOKEN}", {"greetings": 1, **DEFLATE}, "deflate")


def start(directory: Path, program: str, target: str, load: dict[str, Word], *more: str) -> Running:
    ws, control = free_port(), free_port()
    environment = {"NODE_PATH": str(node_modules()), "NODE_ENV": "production", "BENCH_TOKEN": TOKEN}
    server = Process(["node", str(SERVERS / program), str(ws), str(control), *more], directory, program, environment)
    server.wait_for_port(ws)
    server.wait_for_port(control)
    return Running(
        server=[server],
        load={**TOWER, **LINES, "ws_port": ws, "head": head(ws, target), "pub_port": control, **load},
    )


WS = Peer(
    "ws",
    "node ws",
    start_ws,
    node_missing,
    loads=LOADS - {"idle", "topics"},
    ways={"deflate": start_ws_deflating},
    versions=partial(of_node, "ws"),
)
SOCKET_IO = Peer(
    "socket.io",
    "Socket.IO (node)",
    start_socket_io,
    node_missing,
    loads=LOADS - {"pace", "slow", "idle", "topics"},
    versions=partial(of_node, "socket.io", "engine.io", "ws"),
)
