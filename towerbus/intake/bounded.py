"""A request whose body is bounded while it arrives: twisted.web reads all of it before anybody is asked."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.server import Request

MAX_BODY = 16 * 1024 * 1024
"""Bytes in a request's body, at the most."""
PATIENCE = 4
"""How many times the limit is read of a body that is refused. A client that is cut off while it sends may lose the
answer (RFC 9112 section 9.6); one that reads it stops sending."""


class BoundedRequest(Request):
    """A request whose body is bounded, also where no length was announced, and left as it is.

    Attributes:
        max_body: Bytes in the body, at the most.
        media_type: What the client calls the body, in lower case and without parameters.
    """

    max_body = MAX_BODY
    media_type = ""
    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """Refuse a body that announces itself as too large."""
        super().gotLength(length)
        if length is not None and length > self.max_body:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Take a piece of the body, or pass it over."""
        self._received += len(data)
        if self._received > self.max_body and not self._refused:
            self._refuse()
        if not self._refused:
            super().handleContentChunk(data)
        elif self._received > PATIENCE * self.max_body:
            self._transport.abortConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802 - Twisted's name
        """Go on with it, where it was not refused.

        The body's type is kept from twisted.web: curl calls JSON a form by default, and forms would be taken apart.
        """
        if self._refused:
            self.channel.loseConnection()
            return
        self.media_type = (self.getHeader("content-type") or "").partition(";")[0].strip().lower()
        self.requestHeaders.removeHeader(b"content-type")
        super().requestReceived(command, path, version)

    @property
    def _transport(self) -> Any:
        return self.channel.transport

    def _refuse(self) -> None:
        """Answer at once; what still comes is passed over."""
        self._refused = True
        # Twisted would invite the body that was just refused.
        self.requestHeaders.removeHeader(b"expect")
        body = msgspec.json.encode({"error": f"the body is over the limit of {self.max_body} bytes"}) + b"\n"
        head = (
            "HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
