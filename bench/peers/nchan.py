"""Nchan, nginx's own broadcast module: one worker, no token check, events by HTTP POST (pipelined in bursts)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from processes import Process, free_port

from peers.language import Word, head
from peers.peer import DEFLATE, LOADS, MANY, Peer, Running
from peers.versions import of_debian, said

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CONFIGURATION = """
load_module {module};
daemon off;
pid nginx.pid;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr warn;
# Idle connections are dropped where fewer than a sixteenth of these are free.
events {{ worker_connections 24000; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    nchan_shared_memory_size 128M;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        tcp_nodelay on;
        nchan_subscriber_first_message newest;
        nchan_message_buffer_length 200;
        nchan_message_timeout 1m;
        location = /all {{
            nchan_subscriber websocket;
            nchan_channel_id jobs;
            nchan_subscriber_last_message_id $arg_since;
        }}
        location ~ ^/own/(\\d+)$ {{
            nchan_subscriber websocket;
            nchan_channel_id jobs job_$1;
        }}
        location ~ ^/idle/(\\d+)$ {{
            nchan_subscriber websocket;
            nchan_channel_id job_$1;
        }}
        location ~ ^/publish/(\\w+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            nchan_deflate_message_for_websocket {deflate};
        }}
    }}
}}
"""


def start(directory: Path, deflate: str = "off") -> Running:
    port = free_port()
    (directory / "nginx.conf").write_text(CONFIGURATION.format(module=MODULE, port=port, deflate=deflate))
    server = Process(["nginx", "-p", f"{directory}/", "-c", "nginx.conf", "-e", "stderr"], directory, "nginx")
    server.wait_for_port(port)
    host = f"HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    return Running(
        server=[server],
        load={
            "ws_port": port,
            "head": head(port, "/all"),
            "head_own": head(port, "/own/@@@@@@"),
            "head_idle": head(port, "/idle/@@@@@@"),
            "pub_port": port,
            "pub_head": f"POST /publish/jobs {host}",
            "own_head": f"POST /publish/job_@@@@@@ {host}",
        },
    )


def start_resuming(directory: Path) -> Running:
    """For clients that are told the number of each message, and come back with it."""
    running = start(directory)
    port = int(str(running.load["ws_port"]))
    meta = "Sec-WebSocket-Protocol: ws+meta.nchan"
    resuming: dict[str, Word] = {
        "framing": "nchan.meta",
        "head": head(port, "/all", meta),
        "back_head": head(port, "/all?since=^^^^^^", meta),
    }
    return replace(running, load={**running.load, **resuming})


def start_deflating(directory: Path) -> Running:
    running = start(directory, "on")
    return replace(running, load={**running.load, **DEFLATE})


def missing() -> str:
    return "" if shutil.which("nginx") and MODULE.exists() else "Nchan (apt-get install libnginx-mod-nchan nginx-light)"


def versions() -> dict[str, str]:
    return {"nginx": said("nginx", "-v"), **of_debian("libnginx-mod-nchan")}


WAYS = {"storm": start_resuming, "deflate": start_deflating}
PEER = Peer(
    "nchan",
    "Nchan, 1 worker",
    start,
    missing,
    loads=(LOADS | MANY) - {"navigation", "topics"},
    ways=WAYS,
    versions=versions,
)
