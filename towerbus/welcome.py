"""What a newcomer is told at the start: where it listens, a line to paste to watch and a line to paste to emit.

A line is printed as a command only where it works as it stands; what can't be pasted is a comment that says why.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress

SECURE = frozenset({"ssl", "tls"})
"""Kinds of endpoints that speak TLS."""
PROXIED = "haproxy"
"""The kind of endpoint that wraps another, and takes connections from a proxy only."""
_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told apart, not bound
_PAYLOAD = '{"unified_job_id": 1, "status": "running"}'
_EVENT = f'{{"group": "jobs", "type": "status_changed", "payload": {_PAYLOAD}}}'


class Listens(Protocol):
    """What is told of a listener."""

    @property
    def description(self) -> str:
        """The endpoint, as it was configured."""

    @property
    def address(self) -> IAddress:
        """Where it listens."""


class Place(NamedTuple):
    """Where somebody on this machine reaches a listener.

    Attributes:
        host: Host and port as they stand in a URL; empty for a Unix socket.
        path: The path of a Unix socket; it begins with NUL in Linux's abstract namespace; else empty.
        secure: Whether it speaks TLS.
        proxied: Whether it takes connections from a proxy only.
    """

    host: str
    path: str
    secure: bool
    proxied: bool


class Welcome(Service):
    """Tells a newcomer, on standard output, what to type next.

    Args:
        websocket: Where the WebSocket is.
        http: Where producers post.
        path: The WebSocket's path.
        token: The token for everything, made for this run; empty where there is none.
    """

    def __init__(self, websocket: Listens, http: Listens, path: str, token: str) -> None:
        self._websocket = websocket
        self._http = http
        self._path = path
        self._token = token

    def startService(self) -> None:
        """Print, past the log: the lines are to be pasted, and the token is no log's business."""
        super().startService()
        websocket, http = (place(each.description, each.address) for each in (self._websocket, self._http))
        text = "\n".join(lines(websocket, http, self._path, self._token or "TOKEN", command()))
        # Without standard output, or with one that nobody reads, there is nobody to tell; print() would tell the log.
        if sys.__stdout__ is not None:
            with suppress(OSError):
                sys.__stdout__.buffer.write(os.fsencode(text) + b"\n")
                sys.__stdout__.buffer.flush()


def place(description: str, address: IAddress) -> Place:
    """Where a listener is reached.

    Args:
        description: Its endpoint, as it was configured, such as `tcp:8051`.
        address: Where it listens.
    """
    kind, _, rest = description.partition(":")
    proxied = kind == PROXIED
    secure = (rest.partition(":")[0] if proxied else kind) in SECURE
    if isinstance(address, UNIXAddress):
        name = os.fsdecode(address.name or b"")
        return Place("", name if name.startswith("\0") else str(Path(name).absolute()), secure, proxied)
    host, port = str(getattr(address, "host", "")), getattr(address, "port", 0)
    host = _LOOPBACKS.get(host, host)
    scope = getattr(address, "scopeID", 0)
    if scope and "%" not in host:
        host += f"%25{socket.if_indextoname(scope)}"
    return Place(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "", secure, proxied)


def lines(websocket: Place, http: Place, path: str, token: str, command: str) -> list[str]:
    """The lines: where clients connect, one to watch, one to emit, and what else there is to know.

    Args:
        websocket: Where the WebSocket is.
        http: Where producers post.
        path: The WebSocket's path.
        token: The token, or what stands for one.
        command: How `towerbus` is called.
    """
    hosts = sorted({at.host.rpartition(":")[0] for at in (websocket, http) if at.secure and at.host and not at.proxied})
    return [
        *_watching(websocket, path, token, command),
        _emitting(http, token, command),
        *(
            f"# The certificate has to name {host}; where it names another host, put that into the URLs"
            for host in hosts
        ),
    ]


def _watching(at: Place, path: str, token: str, command: str) -> list[str]:
    scheme = "wss" if at.secure else "ws"
    if at.proxied:
        return [
            f"# WebSocket: {path}?token={token} at the proxy in front of {_where(at)}",
            "# towerbus watch has to use that proxy too: this listener expects the PROXY protocol",
        ]
    if not at.host:
        return [
            f"# WebSocket: {path}?token={token} on {_where(at)}",
            "# towerbus watch can't use a Unix socket: put a proxy such as nginx before it, or give a tcp: endpoint",
        ]
    url = f"{scheme}://{at.host}{path}"
    return [f"{url}?token={token}", f"{command} watch --url {shlex.quote(url)} --token {token} jobs:status_changed"]


def _emitting(at: Place, token: str, command: str) -> str:
    scheme = "https" if at.secure else "http"
    if at.proxied:
        return f"# POST /emit has to use the proxy in front of {_where(at)}: it expects the PROXY protocol"
    if not at.host:
        abstract = at.path.startswith("\0")
        option = "--abstract-unix-socket" if abstract else "--unix-socket"
        return (
            f"curl {option} {shlex.quote(at.path[abstract:])} -H 'Authorization: Bearer {token}' "
            f"{scheme}://localhost/emit -d {shlex.quote(_EVENT)}"
        )
    url = shlex.quote(f"{scheme}://{at.host}")
    return f"{command} emit --url {url} --token {token} jobs status_changed {shlex.quote(_PAYLOAD)}"


def _where(at: Place) -> str:
    """A listener's place in words, on one line whatever is in its path."""
    if at.host:
        return at.host
    path = at.path.replace("\0", "@", 1)
    return f"the Unix socket {path if path.isprintable() else ascii(path)}"


def command() -> str:
    """How the `towerbus` command is called from here: by its path, where the shell would not find it."""
    beside = Path(sys.executable).with_name("towerbus")
    if shutil.which("towerbus") or not beside.exists():
        return "towerbus"
    return shlex.quote(str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside))
