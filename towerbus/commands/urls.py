"""The `--url` and `--token` of the commands.

One `TOWERBUS_URL` serves both commands while the listeners have their default ports: 8051 for the WebSocket, 8052 for
HTTP. With other ports nobody can tell one from the other, and the error says what is wanted.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import click

from towerbus.errors import ConfigError
from towerbus.urls import ESCAPES, shown

WEBSOCKET_URL = "ws://127.0.0.1:8051/websocket/"
HTTP_URL = "http://127.0.0.1:8052"
_WEBSOCKET_PORT, _HTTP_PORT = 8051, 8052
_TWINS = {"ws": "http", "wss": "https", "http": "ws", "https": "wss"}

token_option = click.option(
    "--token", envvar="TOWERBUS_TOKEN", default="", help="A token [$TOWERBUS_TOKEN, or ?token= in the URL]."
)


def http_url(url: str) -> str:
    """The HTTP listener's URL, also where the WebSocket's on its default port is given."""
    scheme, host, port, query = _parts(url)
    if scheme in {"ws", "wss"} and port == _WEBSOCKET_PORT:
        return f"{_TWINS[scheme]}://{host}:{_HTTP_PORT}/{query}"
    return url


def websocket_url(url: str) -> str:
    """The WebSocket's URL, also where the HTTP listener's on its default port is given.

    Raises:
        ConfigError: It is another URL.
    """
    scheme, host, port, query = _parts(url)
    if scheme in {"http", "https"} and port == _HTTP_PORT:
        return f"{_TWINS[scheme]}://{host}:{_WEBSOCKET_PORT}/websocket/{query}"
    if scheme not in {"ws", "wss"} or not host or not url.isascii() or not url.isprintable():
        raise ConfigError(f"{shown(url)} is not the URL of a WebSocket; wanted is one such as {WEBSOCKET_URL}")
    return url


def has_token(url: str) -> bool:
    """Whether the URL holds a token, which then is the one that counts."""
    return "token" in parse_qs(urlsplit(url).query, keep_blank_values=True)


def _parts(url: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Python's words may hold a part of a password.
        raise ConfigError(f"not a URL: its host or its port is not right ({ESCAPES})") from None
    host = parts.hostname or ""
    return parts.scheme, f"[{host}]" if ":" in host else host, port, f"?{parts.query}" if parts.query else ""
