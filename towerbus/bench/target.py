"""Where the bench's clients connect, and how they say hello."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from towerbus.errors import ConfigError, TowerbusError

BIND_ADDRESS_NO_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux, ip(7): the port is chosen at connect(2), so that only address pairs must differ."""
SMALL = 4096
"""Bytes of a slow reader's receive buffer: the kernel would read megabytes for it."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_NOT_NOW = ([b"429"], [b"502"], [b"503"], [b"504"])
"""Statuses of a handshake, of a server or a proxy before it, that say to come back."""
_USABLE = 0.9
"""The part of the ephemeral ports that is taken for free."""


@dataclass(frozen=True)
class Target:
    """A WebSocket, and what clients show there.

    Attributes:
        host: For the certificate and the head.
        address: What is connected to, with its family.
        family: AF_INET or AF_INET6.
        path: Path and query.
        token: Shown in the head, where it is not in the URL.
        subprotocol: The dialect.
        tls: How to talk TLS; None for plain.
        sources: Addresses of ours; empty for the system's choice.
        compression: Whether permessage-deflate is offered.
    """

    host: str
    address: tuple[str, int]
    family: socket.AddressFamily
    path: str
    token: str = field(repr=False)
    subprotocol: str
    tls: ssl.SSLContext | None
    sources: Sequence[str]
    compression: bool = False

    @property
    def shows_token(self) -> bool:
        """Whether clients show a token, in the head or in the URL."""
        return bool(self.token) or "token=" in self.path.partition("?")[2]

    def request(self) -> tuple[bytes, bytes]:
        """A handshake, and what its answer must hold (RFC 6455 section 4.1)."""
        key = base64.b64encode(os.urandom(16))
        lines = [
            f"GET {self.path} HTTP/1.1",
            f"Host: {self.host}:{self.address[1]}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {self.subprotocol}",
            *([f"Authorization: Bearer {self.token}"] if self.token else []),
            *(["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"] if self.compression else []),
        ]
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324 - the protocol's own
        return "\r\n".join([*lines, "", ""]).encode(), accept

    def socket(self, number: int, *, slow: bool) -> socket.socket:
        """A connection that is being made.

        Args:
            number: The client's.
            slow: Whether it is to have a small receive buffer.

        Raises:
            OSError: There is no room for it, or the address is not ours.
        """
        made = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if slow:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            if self.sources:
                if self.family is socket.AF_INET:
                    made.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
                made.bind((self.sources[number % len(self.sources)], 0))
            made.connect_ex(self.address)
        except BaseException:
            made.close()
            raise
        return made


class NotReadyError(TowerbusError):
    """The server can't take a client now: one that was there before comes back later."""


def check_answer(head: bytes, accept: bytes, subprotocol: str, *, compression: bool = False) -> None:
    """Look at a server's handshake.

    Raises:
        NotReadyError: It is one that says to come back.
        TowerbusError: It is not one, chooses another dialect, or does not compress as it should.
    """
    lines = head.split(b"\r\n")
    if not lines[0].startswith(b"HTTP/1.1 101"):
        said = lines[0].decode("ascii", "replace")
        if lines[0].split(b" ")[1:2] in _NOT_NOW:
            raise NotReadyError(f"the server refused the handshake: {said}")
        raise TowerbusError(f"the server refused the handshake: {said}: is the URL that of towerbus's WebSocket?")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if fields.get(b"sec-websocket-accept") != accept:
        raise TowerbusError("the answer to the handshake is not that of a WebSocket: its Sec-WebSocket-Accept is wrong")
    if (chosen := fields.get(b"sec-websocket-protocol", b"").decode()) != subprotocol:
        raise TowerbusError(f"the server does not speak {subprotocol}: it chose {chosen or 'no subprotocol'}")
    extension = fields.get(b"sec-websocket-extensions", b"")
    if compression and (
        not extension.startswith(b"permessage-deflate") or b"server_no_context_takeover" not in extension
    ):
        raise TowerbusError("the server does not compress each event by itself: start it with --compression on")
    if extension and not compression:
        raise TowerbusError(
            f"the server chose an extension that was not offered: {extension.decode('ascii', 'replace')}"
        )


def target(
    url: str,
    token: str,
    subprotocol: str,
    clients: int,
    *,
    tls: ssl.SSLContext | None,
    sources: Sequence[str],
    compression: bool = False,
) -> Target:
    """Find out where to connect.

    Args:
        url: The WebSocket's URL.
        token: A token; empty where it is in the URL.
        subprotocol: The dialect.
        clients: How many there will be: where the ports of one address are too few, and the server is on this machine,
            further addresses of 127.0.0.0/8 are taken.
        tls: How to talk TLS, for `wss:`.
        sources: Addresses of ours to connect from.
        compression: Whether permessage-deflate is offered.

    Raises:
        ConfigError: The host is not known, or there are too few addresses.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError("the token has blanks, line breaks or characters outside ASCII: it was not copied whole")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--url: the host {host!r} is not known: {error.strerror}") from None
    place = (str(address[0]), int(address[1]))
    shown = f"[{host}]" if ":" in host else host
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    ours = _sources(place[0], clients, sources)
    secure = tls if parts.scheme == "wss" else None
    return Target(shown, place, family, path, token, subprotocol, secure, ours, compression)


def _sources(to: str, clients: int, given: Sequence[str]) -> Sequence[str]:
    """Addresses that have enough ports for all clients."""
    try:
        low, high = map(int, _PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        low, high = 32768, 60999
    each = int((high - low + 1) * _USABLE)
    wanted = -(-clients // each)
    if given:
        kinds = {_own_address(address) for address in given}
        if kinds != {ipaddress.ip_address(to.partition("%")[0]).version}:
            raise ConfigError(f"--source: {', '.join(given)} can't reach {to}: give addresses of the same kind")
        if len(given) < wanted:
            raise ConfigError(
                f"--source: {clients} clients need {wanted} addresses of {each} ports each; got {len(given)}"
            )
        return tuple(given)
    if wanted <= 1:
        return ()
    if to.startswith("127."):
        return tuple(f"127.0.0.{number}" for number in range(1, wanted + 1))
    raise ConfigError(f"{clients} clients need {wanted} addresses of {each} ports each: give them with --source")


def _own_address(text: str) -> int:
    """The version of an address of this machine: 4 or 6.

    Raises:
        ConfigError: It is none.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ConfigError(f"--source: got {text!r}; wanted is an address of this machine, such as 127.0.0.2") from None
    family = socket.AF_INET if isinstance(address, ipaddress.IPv4Address) else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((text, 0))
        except OSError as error:
            raise ConfigError(f"--source: {text} is not an address of this machine: {error.strerror}") from None
    return address.version
