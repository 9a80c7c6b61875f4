"""Nchan, nginx's own broadcast module: one worker, no token check, events by HTTP POST (pipelined in bursts)."""

from __future__ import annotations

import shutil
from pathlib import Path

from processes import Process, free_port

from peers.peer import Peer, Running

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CONFIGURATION = """
load_module {module};
daemon off;
pid nginx.pid;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr warn;
events {{ worker_connections 19500; }}
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
        location = /subscribe {{
            nchan_subscriber websocket;
            nchan_channel_id jobs;
            nchan_subscriber_first_message newest;
        }}
        location = /publish {{
            nchan_publisher http;
            nchan_channel_id jobs;
            nchan_message_buffer_length 200;
            nchan_message_timeout 1m;
        }}
    }}
}}
"""


def start(directory: Path) -> Running:
    port = free_port()
    (directory / "nginx.conf").write_text(CONFIGURATION.format(module=MODULE, port=port))
    server = Process(["nginx", "-p", f"{directory}/", "-c", "nginx.conf", "-e", "stderr"], directory, "nginx")
    server.wait_for_port(port)
    head = f"POST /publish HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    return Running(
        server=[server],
        load=[
            *("--ws-port", str(port), "--ws-target", "/subscribe"),
            *("--pub-port", str(port), "--pub-head", head, "--pub-suffix", ""),
        ],
    )


def missing() -> str:
    return "" if shutil.which("nginx") and MODULE.exists() else "Nchan (apt-get install libnginx-mod-nchan nginx-light)"


PEER = Peer("nchan", "Nchan, 1 worker", start, missing)
