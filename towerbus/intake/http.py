"""`POST /emit`: events over HTTP, answered when they are confirmed.

`bodies.py` has what a body may be, docs/protocol.md the answers.
"""

from __future__ import annotations

from os import SEEK_END
from typing import Any
from urllib.parse import parse_qs

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from towerbus.access import Identity
from towerbus.auth.credentials import credential
from towerbus.auth.interface import Credential, IAuthenticator, Kind, NotNow, Refused
from towerbus.errors import NotConfirmed, PeerError
from towerbus.event import MAX_PAYLOAD
from towerbus.intake.bodies import LINES, TooLargeError, read
from towerbus.intake.bounded import MAX_BODY, BoundedRequest
from towerbus.intake.interface import IIntake

_log = Logger()

MAX_UNDER_WAY = 256
"""Requests that may wait for their confirmation at once."""
MAX_BYTES = 64 * 1024 * 1024
"""Bytes in the bodies of these requests, together; one alone may be larger."""
RETRY_AFTER = 1
"""Seconds after which to come back."""


class EmitResource(Resource):
    """`/emit`.

    Args:
        intake: Where events go.
        authenticator: Knows the producers' tokens.
        max_payload: Bytes in a payload, at the most.
        max_under_way: Requests that may wait for their confirmation at once.
        max_bytes: Bytes in the bodies of these requests, together; one alone may be larger.
    """

    isLeaf = True

    def __init__(
        self,
        intake: IIntake,
        authenticator: IAuthenticator,
        *,
        max_payload: int = MAX_PAYLOAD,
        max_under_way: int = MAX_UNDER_WAY,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__()
        self._intake = intake
        self._authenticator = authenticator
        self._max_payload = max_payload
        self._max_under_way = max_under_way
        self._max_bytes = max_bytes
        self._under_way = 0
        self._bytes = 0

    def render(self, request: Request) -> Any:
        """Answer a request."""
        if request.method != b"POST":
            request.setHeader(b"Allow", b"POST")
            return _error(request, 405, "only POST is understood here")
        shown = _shown(request)
        if shown is None:
            return _error(request, 401, "no token: send Authorization: Bearer TOKEN, or ?token=TOKEN")
        if self._under_way >= self._max_under_way:
            return _error(request, 429, f"{self._under_way} requests wait for their confirmation; come back later")
        size = _size(request)
        if self._under_way and self._bytes + size > self._max_bytes:
            return _error(request, 429, f"{self._bytes} bytes wait for their confirmation; come back later")
        self._under_way += 1
        self._bytes += size
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        done: Deferred[Any] = maybeDeferred(self._authenticator.authenticate, shown)
        done.addCallback(self._emit, request)
        done.addErrback(_failed, request)
        done.addCallback(self._finish, request, gone, size)
        return NOT_DONE_YET

    def _emit(self, identity: Identity | None, request: Request) -> Any:
        if identity is None:
            return _error(request, 401, "the token is not known here")
        if not identity.grants.emit:
            return _error(request, 403, "the token has no grant to emit anything")
        try:
            body: Any = request.content
            lines = getattr(request, "media_type", "") in LINES
            events = read(body.read(), self._max_payload, lines=lines)
        except TooLargeError as error:
            return _error(request, 413, str(error))
        except PeerError as error:
            return _error(request, 400, str(error))
        for each in events:
            if not identity.grants.may_emit(each.topic):
                return _error(request, 403, f"the token has no grant to emit to {each.topic.group}/{each.topic.type}")
        return self._intake.emit(events).addCallback(_accepted, request, len(events))

    def _finish(self, body: bytes, request: Request, gone: list[object], size: int) -> None:
        self._under_way -= 1
        self._bytes -= size
        if not gone:
            request.write(body)
            request.finish()


def _shown(request: Request) -> Credential | None:
    """The token, from the header or the URL only: a cookie would let any page emit."""
    authorization = request.getHeader("authorization") or ""
    query = request.uri.decode("utf-8", "replace").partition("?")[2]
    shown = credential(
        params=parse_qs(query, keep_blank_values=True),
        headers={"authorization": authorization} if authorization else {},
        protocols=(),
        address=str(getattr(request.client, "host", "")),
    )
    return shown if shown is not None and shown.kind is Kind.TOKEN else None


def _size(request: Request) -> int:
    """Bytes in the body, without reading it."""
    body: Any = request.content
    size: int = body.seek(0, SEEK_END)
    body.seek(0)
    return size


def _accepted(_: object, request: Request, count: int) -> bytes:
    return _answer(request, 202, {"accepted": count})


def _failed(failure: Failure, request: Request) -> Any:
    error = failure.value
    if isinstance(error, Refused):
        return _error(request, 401, str(error))
    if isinstance(error, NotNow):
        return _error(request, 503, "the token can't be judged now; come back later")
    if isinstance(error, NotConfirmed):
        return _answer(request, 503, {"error": error.reason, "taken": not error.sure, "ids": list(error.ids)})
    if isinstance(error, PeerError):
        return _error(request, 400, str(error))
    _log.failure("emit_failed", failure)
    return _error(request, 500, "internal error")


def _error(request: Request, code: int, text: str) -> bytes:
    if code == 401:  # noqa: PLR2004 - HTTP's own number
        request.setHeader(b"WWW-Authenticate", b"Bearer")
    return _answer(request, code, {"error": text})


def _answer(request: Request, code: int, value: object) -> bytes:
    if code in {429, 503}:
        request.setHeader(b"Retry-After", str(RETRY_AFTER).encode())
    body = msgspec.json.encode(value) + b"\n"
    request.setResponseCode(code)
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Content-Length", str(len(body)).encode())
    # Twisted would log the request, with the token in its URL, when HEAD is answered with a body.
    return b"" if request.method == b"HEAD" else body


class NotFound(Resource):
    """What every other path answers."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """Say what there is."""
        return _error(request, 404, "there is nothing here; events are emitted with POST /emit")


def site(
    intake: IIntake,
    authenticator: IAuthenticator,
    reactor: Any,
    *,
    max_payload: int = MAX_PAYLOAD,
    max_body: int = MAX_BODY,
    max_under_way: int = MAX_UNDER_WAY,
    max_bytes: int = MAX_BYTES,
) -> Site:
    """The HTTP listener's site, without an access log: its lines would hold tokens.

    Args:
        intake: Where events go.
        authenticator: Knows the producers' tokens.
        reactor: Keeps the time limits of connections.
        max_payload: Bytes in a payload, at the most.
        max_body: Bytes in a request's body, at the most.
        max_under_way: Requests that may wait for their confirmation at once.
        max_bytes: Bytes in the bodies of these requests, together.
    """
    root = NotFound()
    root.isLeaf = False
    emit = EmitResource(
        intake, authenticator, max_payload=max_payload, max_under_way=max_under_way, max_bytes=max_bytes
    )
    root.putChild(b"emit", emit)
    root.getChild = lambda *_: NotFound()  # type: ignore[method-assign]
    requests = type("Bounded", (BoundedRequest,), {"max_body": max_body})
    made: Site = Site(root, requestFactory=requests, timeout=60, reactor=reactor)
    made.log = _no_access_log  # type: ignore[method-assign,assignment]
    return made


def _no_access_log(_: HTTPRequest) -> None:
    """Write nothing."""
