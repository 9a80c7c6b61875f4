"""Mosquitto: MQTT over WebSocket at QoS 0, no login; events over MQTT on TCP."""

from __future__ import annotations

import shutil
from pathlib import Path

from processes import Process, free_port

from peers.language import head
from peers.peer import LOADS, Peer, Running
from peers.versions import said

CONFIGURATION = """
allow_anonymous true
persistence false
max_queued_messages 0
max_connections -1
set_tcp_nodelay true
log_type error
log_dest stderr
listener {ws} 127.0.0.1
protocol websockets
listener {port} 127.0.0.1
protocol mqtt
"""
ALL = b"jobs/status_changed"
OWN = b"job_events/@@@@@@"
PROGRAMS = ("mosquitto", "/usr/sbin/mosquitto")


def start(directory: Path) -> Running:
    ws, port = free_port(), free_port()
    (directory / "mosquitto.conf").write_text(CONFIGURATION.format(ws=ws, port=port))
    server = Process([program(), "-c", "mosquitto.conf"], directory, "mosquitto")
    server.wait_for_port(ws)
    server.wait_for_port(port)
    return Running(
        server=[server],
        load={
            "framing": "mqtt",
            "binary": True,
            "ws_port": ws,
            "hello": CONNECT,
            "greetings": 1,
            "head": head(ws, "/mqtt", "Sec-WebSocket-Protocol: mqtt"),
            "first": subscribe(ALL),
            "first_own": subscribe(ALL, OWN),
            "first_idle": subscribe(OWN),
            "replies": 1,
            "next_own": packet(0xA2, b"\0\2" + text(b"job_events/&&&&&&")) + subscribe(OWN),
            "next_replies": 2,
            "pub_port": port,
            "pub_hello": CONNECT,
            "pub_suffix": "",
            "own_suffix": "",
        },
        sized=lambda size: {"pub_prefix": publish(ALL, size), "own_prefix": publish(OWN, size)},
    )


def text(what: bytes) -> bytes:
    """A string as MQTT writes it (3.1.1, section 1.5.3)."""
    return len(what).to_bytes(2, "big") + what


def beginning(kind: int, length: int) -> bytes:
    """A packet's fixed header (section 2.2)."""
    out = bytearray([kind])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([*out, length])


def packet(kind: int, body: bytes) -> bytes:
    return beginning(kind, len(body)) + body


def subscribe(*topics: bytes) -> bytes:
    return packet(0x82, b"\0\1" + b"".join(text(topic) + b"\0" for topic in topics))


def publish(topic: bytes, size: int) -> bytes:
    """A PUBLISH at QoS 0, up to its payload of so many bytes."""
    return beginning(0x30, len(text(topic)) + size) + text(topic)


CONNECT = packet(0x10, text(b"MQTT") + bytes([4, 2]) + b"\0\0" + text(b""))
"""A clean session, no keepalive, a name from the server."""


def program() -> str:
    """Where it is; Debian has it out of a user's PATH."""
    return next((found for each in PROGRAMS if (found := shutil.which(each))), "")


def missing() -> str:
    return "" if program() else "Mosquitto (apt-get install mosquitto)"


def versions() -> dict[str, str]:
    return {"mosquitto": said(program(), "-h")}


PEER = Peer(
    "mosquitto",
    "Mosquitto websockets",
    start,
    missing,
    loads=LOADS - {"pace", "idle", "topics"},
    versions=versions,
)
