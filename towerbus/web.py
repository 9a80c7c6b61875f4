"""The HTTP listener's site: what stands at which path, and how answers look.

HTTP/1.1 only: over TLS, Twisted would speak HTTP/2 where its parts are installed, past the bounds of
`intake/connection.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from towerbus.intake.bounded import MAX_BODY, BoundedRequest
from towerbus.intake.connection import SECONDS, BoundedConnection

RETRY_AFTER = 1
"""Seconds after which to come back."""


def answer(request: Request, code: int, value: object) -> bytes:
    """Set the status and the headers of an answer in JSON.

    Returns:
        Its body, for `render` to return.
    """
    if code in {429, 503}:
        request.setHeader(b"Retry-After", str(RETRY_AFTER).encode())
    body = msgspec.json.encode(value) + b"\n"
    request.setResponseCode(code)
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Content-Length", str(len(body)).encode())
    # Twisted would log the request, with the token in its URL, when HEAD is answered with a body.
    return b"" if request.method == b"HEAD" else body


def error(request: Request, code: int, text: str) -> bytes:
    """Set the status and the headers of an answer that says what is wrong.

    Returns:
        Its body, for `render` to return.
    """
    if code == 401:  # noqa: PLR2004 - HTTP's own number
        request.setHeader(b"WWW-Authenticate", b"Bearer")
    return answer(request, code, {"error": text})


class NotFound(Resource):
    """What every path answers at which there is nothing."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """Say what there is."""
        return error(request, 404, "there is nothing here; events are emitted with POST /emit")


class _Root(NotFound):
    isLeaf = False

    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: ARG002 - Twisted's signature
        return NotFound()


class _BoundedSite(Site):
    # A plain channel: Twisted's own stands behind one that would go over to HTTP/2.
    protocol = BoundedConnection  # type: ignore[assignment]

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802 - Twisted's name
        return [b"http/1.1"]

    def log(self, request: HTTPRequest) -> None:
        """Write no access log: its lines would hold tokens."""


def site(
    children: Mapping[bytes, IResource], reactor: Any, *, max_body: int = MAX_BODY, seconds: float = SECONDS
) -> Site:
    """A site of resources. They are rendered when a request's head is complete, before its body.

    Args:
        children: The resources by their path, of one part or two: `{b"emit": ...}` for `/emit`.
        reactor: Keeps the time limits of connections.
        max_body: Bytes in a request's body, at the most.
        seconds: For a request's head, counted from the answer before it, and then for its body.
    """
    root = _Root()
    for path, child in children.items():
        above, _, name = path.rpartition(b"/")
        if above and above not in root.children:
            root.putChild(above, _Root())
        (root.children[above] if above else root).putChild(name, child)
    requests = type("Bounded", (BoundedRequest,), {"max_body": max_body})
    return _BoundedSite(root, requestFactory=requests, timeout=seconds, reactor=reactor)
