"""RabbitMQ's own WebSocket door: STOMP, a topic exchange, a queue for each subscription; events over STOMP on TCP."""

from __future__ import annotations

from pathlib import Path

from processes import free_port

from peers.language import head
from peers.peer import LOADS, Peer, Running
from peers.rabbitmq import Node, missing, versions

HOUR = "3600000"
"""Milliseconds after which a client is dropped that says nothing; it is a minute by default, and ours only listen."""
CONNECT = "CONNECT\naccept-version:1.2\nhost:tb\nlogin:tb\npasscode:tb\nheart-beat:0,0\n\n\0"
ALL = "/topic/jobs.status_changed"
OWN = "/topic/job_events.@@@@@@"


def start(directory: Path) -> Running:
    del directory  # the node has its own
    ws, stomp = free_port(), free_port()
    config = {
        "web_stomp.tcp.listener": f"127.0.0.1:{ws}",
        "web_stomp.ws_opts.compress": "false",
        "web_stomp.ws_opts.idle_timeout": HOUR,
        "web_stomp.cowboy_opts.idle_timeout": HOUR,
        "stomp.listeners.tcp.1": f"127.0.0.1:{stomp}",
    }
    node = Node(["rabbitmq_web_stomp"], {**config, "web_stomp.tcp.backlog": "4096"})
    return Running(
        server=[node],
        load={
            "framing": "stomp",
            "ws_port": ws,
            "hello": CONNECT,
            "greetings": 1,
            "head": head(ws, "/ws", "Sec-WebSocket-Protocol: v12.stomp"),
            "first": subscribe(0, ALL, receipt=True),
            "replies": 1,
            "first_own": subscribe(0, ALL) + subscribe(1, OWN, receipt=True),
            "first_idle": subscribe(1, OWN, receipt=True),
            "next_own": "UNSUBSCRIBE\nid:1\n\n\0" + subscribe(1, OWN, receipt=True),
            "next_replies": 1,
            "pub_port": stomp,
            "pub_hello": CONNECT,
            "pub_suffix": "\0",
            "own_suffix": "\0",
        },
        sized=lambda size: {
            "pub_prefix": f"SEND\ndestination:{ALL}\ncontent-length:{size}\n\n",
            "own_prefix": f"SEND\ndestination:{OWN}\ncontent-length:{size}\n\n",
        },
    )


def subscribe(number: int, destination: str, *, receipt: bool = False) -> str:
    """A frame that subscribes; its receipt says that all before it is done."""
    asked = "receipt:done\n" if receipt else ""
    return f"SUBSCRIBE\nid:{number}\ndestination:{destination}\nack:auto\n{asked}\n\0"


PEER = Peer(
    "web-stomp",
    "RabbitMQ web-STOMP",
    start,
    missing,
    0.2,
    LOADS - {"pace", "idle", "topics"},
    versions=versions,
)
