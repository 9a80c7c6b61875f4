"""towerbus, everything in one process on the embedded log, as `twistd towerbus` starts it without options."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from processes import Process, free_port

from peers.peer import FIRST, Peer, Running


def start(directory: Path) -> Running:
    ws, http = free_port(), free_port()
    command = [
        str(Path(sys.executable).parent / "twistd"),
        *("-n", "--pidfile=", "towerbus"),
        *("--listen", f"tcp:{ws}:interface=127.0.0.1", "--http", f"tcp:{http}:interface=127.0.0.1"),
    ]
    server = Process(command, directory, "towerbus")
    url = urlsplit(server.wait_for_word("ws://"))
    server.wait_for_port(http)
    token = parse_qs(url.query)["token"][0]
    head = f"POST /emit HTTP/1.1\r\nHost: 127.0.0.1:{http}\r\nAuthorization: Bearer {token}\r\n"
    return Running(
        server=[server],
        load=[
            *("--ws-port", str(ws), "--ws-target", f"{url.path}?{url.query}", "--greetings", "1"),
            *("--first", FIRST, "--replies", "1", "--pub-port", str(http), "--pub-head", head, "--batch"),
            *("--pub-prefix", '{"group":"jobs","type":"status_changed","payload":', "--pub-suffix", "}\n"),
        ],
    )


PEER = Peer("towerbus", "towerbus, embedded log", start)
