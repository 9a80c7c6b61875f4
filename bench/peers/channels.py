"""A consumer like Ansible Tower's on channels_redis, in one process of daphne or uvicorn; Redis and publisher apart."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from processes import Process, free_port

from peers.language import LINES, TOWER, head
from peers.peer import DEFLATE, LOADS, SERVERS, Peer, Running, peers_python, python_missing
from peers.versions import of_python, said

TOKEN = "bench-token"
REDIS = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
DAPHNE = ["daphne", "-b", "127.0.0.1", "--verbosity", "0", "--ping-interval", "20"]
UVICORN = [
    *("uvicorn", "--host", "127.0.0.1", "--log-level", "warning", "--no-access-log", "--lifespan", "off"),
    *("--loop", "uvloop", "--http", "httptools", "--ws", "websockets"),
]


def start_daphne(directory: Path) -> Running:
    return start(directory, DAPHNE, "core")


def start_uvicorn(directory: Path) -> Running:
    return start(directory, [*UVICORN, "--ws-per-message-deflate", "false"], "pubsub")


def start_uvicorn_deflating(directory: Path) -> Running:
    running = start(directory, [*UVICORN, "--ws-per-message-deflate", "true"], "pubsub")
    return replace(running, load={**running.load, **DEFLATE})


def start(directory: Path, server: Sequence[str], layer: str) -> Running:
    ws, control, redis_port = free_port(), free_port(), free_port()
    environment = {
        "PYTHONPATH": str(SERVERS),
        "BENCH_REDIS": f"redis://127.0.0.1:{redis_port}/0",
        "BENCH_LAYER": layer,
        "BENCH_TOKEN": TOKEN,
    }
    python = peers_python()
    redis = Process([*REDIS, "--port", str(redis_port)], directory, "redis")
    redis.wait_for_port(redis_port)
    command = [python, "-m", *server, "--port", str(ws), "channels_app:application"]
    channels = Process(command, directory, "channels", environment)
    publisher = Process(
        [python, str(SERVERS / "channels_publisher.py"), str(control)], directory, "publisher", environment
    )
    channels.wait_for_port(ws)
    publisher.wait_for_port(control)
    return Running(
        server=[channels],
        beside={"redis": redis, "publisher": publisher},
        load={
            **TOWER,
            **LINES,
            "ws_port": ws,
            "head": head(ws, f"/websocket/?token={TOKEN}"),
            "greetings": 1,
            "pub_port": control,
        },
    )


def missing() -> str:
    return python_missing() if shutil.which("redis-server") else "redis-server (apt-get install redis-server)"


def versions(*server: str) -> dict[str, str]:
    return of_python("channels", "channels_redis", "redis", "Django", *server) | {
        "redis-server": said("redis-server", "--version")
    }


PEER = Peer(
    "channels",
    "daphne + channels_redis",
    start_daphne,
    missing,
    0.05,
    LOADS - {"pace", "topics"},
    versions=partial(versions, "daphne", "autobahn", "Twisted"),
)
UNDER_UVICORN = Peer(
    "uvicorn",
    "uvicorn + channels_redis pubsub",
    start_uvicorn,
    missing,
    0.05,
    LOADS - {"pace", "idle", "topics"},
    {"deflate": start_uvicorn_deflating},
    versions=partial(versions, "uvicorn", "uvloop", "httptools", "websockets"),
)
