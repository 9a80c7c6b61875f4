"""daphne, one process, with a consumer like Ansible Tower's on channels_redis; Redis and the publisher are apart."""

from __future__ import annotations

import shutil
from pathlib import Path

from processes import Process, free_port

from peers.peer import FIRST, SERVERS, Peer, Running, peers_python

TOKEN = "bench-token"
REDIS = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
DAPHNE = ["-m", "daphne", "-b", "127.0.0.1", "--verbosity", "0", "--ping-interval", "20"]


def start(directory: Path) -> Running:
    ws, control, redis_port = free_port(), free_port(), free_port()
    environment = {
        "PYTHONPATH": str(SERVERS),
        "BENCH_REDIS": f"redis://127.0.0.1:{redis_port}/0",
        "BENCH_TOKEN": TOKEN,
    }
    python = peers_python()
    redis = Process([*REDIS, "--port", str(redis_port)], directory, "redis")
    redis.wait_for_port(redis_port)
    daphne = Process([python, *DAPHNE, "-p", str(ws), "channels_app:application"], directory, "daphne", environment)
    publisher = Process(
        [python, str(SERVERS / "channels_publisher.py"), str(control)], directory, "publisher", environment
    )
    daphne.wait_for_port(ws)
    publisher.wait_for_port(control)
    return Running(
        server=[daphne],
        beside={"redis": redis, "publisher": publisher},
        load=[
            *("--ws-port", str(ws), "--ws-target", f"/websocket/?token={TOKEN}", "--greetings", "1"),
            *("--first", FIRST, "--replies", "1", "--pub-port", str(control)),
        ],
    )


def missing() -> str:
    return "" if shutil.which("redis-server") else "redis-server (apt-get install redis-server)"


PEER = Peer("channels", "daphne + channels_redis", start, missing, events=0.05)
