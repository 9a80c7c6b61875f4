"""`POST /emit`: events over HTTP, answered when they are confirmed.

The body is one event, a JSON array of events, or one event a line (NDJSON). docs/protocol.md has the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from towerbus import topics
from towerbus.access import Identity
from towerbus.auth.credentials import credential
from towerbus.auth.interface import Credential, IAuthenticator, Kind, NotNow, Refused
from towerbus.errors import NotConfirmed, PeerError
from towerbus.event import MAX_PAYLOAD, Event, EventError, event
from towerbus.intake.interface import IIntake

_log = Logger()

MAX_BODY = 4 * 1024 * 1024
"""Bytes in a request's body, at the most."""
MAX_UNDER_WAY = 256
"""Requests that may wait for their confirmation at once."""
RETRY_AFTER = 1
"""Seconds after which to come back."""


class Given(msgspec.Struct):
    """An event as a producer writes it."""

    group: str
    payload: msgspec.Raw
    type: str | int | None = None
    id: str | None = None


class TooLargeError(EventError):
    """One payload is over the limit."""


_one = msgspec.json.Decoder(Given)
_several = msgspec.json.Decoder(list[Given])
_ITEM = re.compile(r"\$\[(\d+)\]")


def read(body: bytes, max_payload: int = MAX_PAYLOAD) -> list[Event]:
    """Understand a body.

    Raises:
        PeerError: One of the events is not right; the text names it and its fault.
    """
    text = body.strip()
    if not text:
        raise EventError("the body is empty: send an event, an array of events, or one event a line")
    if text.startswith(b"["):
        try:
            items = _several.decode(text)
        except msgspec.ValidationError as error:
            place = _ITEM.search(str(error))
            raise EventError(f"item {place[1] if place else 0}: not an event: {error}") from error
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise EventError(f"not a JSON array: {error}") from error
        return [_event(item, f"item {number}: ", max_payload) for number, item in enumerate(items)]
    try:
        return [_line(text, "", max_payload)]
    except PeerError:
        lines = _lines(body)
        first, second = next(lines), next(lines, None)
        if second is None or not _is_json(first[1]):
            raise
    # One at a time: the first that is wrong ends it, however many follow.
    return [_line(line, f"line {number}: ", max_payload) for number, line in chain((first, second), lines)]


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(BytesIO(body), 1):
        if line.strip():
            yield number, line.strip()


def _is_json(line: bytes) -> bool:
    """Whether a first line stands for itself, so that the body is one event a line."""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _line(text: bytes, prefix: str, max_payload: int) -> Event:
    try:
        given = _one.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"{prefix}not an event: {error}") from error
    return _event(given, prefix, max_payload)


def _event(given: Given, prefix: str, max_payload: int) -> Event:
    try:
        if given.type is None:
            group, type_ = topics.from_name(given.group)
        else:
            group, type_ = given.group, str(given.type)
        payload = bytes(given.payload)
        if len(payload) > max_payload:
            raise TooLargeError(f"{prefix}payload of {len(payload)} bytes is over the limit of {max_payload}")
        return event(group, type_, payload, id=given.id, limit=max_payload)
    except TooLargeError:
        raise
    except PeerError as error:
        raise EventError(f"{prefix}{error}") from error


class EmitResource(Resource):
    """`/emit`.

    Args:
        intake: Where events go.
        authenticator: Knows the producers' tokens.
        max_payload: Bytes in a payload, at the most.
        max_under_way: Requests that may wait for their confirmation at once.
    """

    isLeaf = True

    def __init__(
        self,
        intake: IIntake,
        authenticator: IAuthenticator,
        *,
        max_payload: int = MAX_PAYLOAD,
        max_under_way: int = MAX_UNDER_WAY,
    ) -> None:
        super().__init__()
        self._intake = intake
        self._authenticator = authenticator
        self._max_payload = max_payload
        self._max_under_way = max_under_way
        self._under_way = 0

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
        self._under_way += 1
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        done: Deferred[Any] = maybeDeferred(self._authenticator.authenticate, shown)
        done.addCallback(self._emit, request)
        done.addErrback(_failed, request)
        done.addCallback(self._finish, request, gone)
        return NOT_DONE_YET

    def _emit(self, identity: Identity | None, request: Request) -> Any:
        if identity is None:
            return _error(request, 401, "the token is not known here")
        if not identity.grants.emit:
            return _error(request, 403, "the token has no grant to emit anything")
        try:
            body: Any = request.content
            events = read(body.read(), self._max_payload)
        except TooLargeError as error:
            return _error(request, 413, str(error))
        except PeerError as error:
            return _error(request, 400, str(error))
        for each in events:
            if not identity.grants.may_emit(each.topic):
                return _error(request, 403, f"the token has no grant to emit to {each.topic.group}/{each.topic.type}")
        return self._intake.emit(events).addCallback(_accepted, request, len(events))

    def _finish(self, body: bytes, request: Request, gone: list[object]) -> None:
        self._under_way -= 1
        if not gone:
            request.write(body)
            request.finish()


def _shown(request: Request) -> Credential | None:
    """The token, from the header or the URL only: a cookie would let any page emit."""
    authorization = request.getHeader("authorization") or ""
    query = urlsplit(request.uri.decode("utf-8", "replace")).query
    shown = credential(
        params=parse_qs(query, keep_blank_values=True),
        headers={"authorization": authorization} if authorization else {},
        protocols=(),
        address=str(getattr(request.client, "host", "")),
    )
    return shown if shown is not None and shown.kind is Kind.TOKEN else None


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


class BoundedRequest(Request):
    """A request whose body is bounded while it arrives, also where no length was announced."""

    max_body = MAX_BODY
    _received = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """Refuse a body that announces itself as too large."""
        super().gotLength(length)
        if length is not None and length > self.max_body:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Take a piece of the body."""
        self._received += len(data)
        if self._received > self.max_body:
            self._refuse()
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802 - Twisted's name
        """Leave the body as it is: curl calls JSON a form by default, and forms would be taken apart."""
        self.requestHeaders.removeHeader(b"content-type")
        super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        body = msgspec.json.encode({"error": f"the body is over the limit of {self.max_body} bytes"}) + b"\n"
        transport: Any = self.channel.transport
        head = (
            "HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        transport.write(head.encode() + body)
        self.channel.loseConnection()


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
) -> Site:
    """The HTTP listener's site, without an access log: its lines would hold tokens."""
    root = NotFound()
    root.isLeaf = False
    root.putChild(b"emit", EmitResource(intake, authenticator, max_payload=max_payload))
    root.getChild = lambda *_: NotFound()  # type: ignore[method-assign]
    requests = type("Bounded", (BoundedRequest,), {"max_body": max_body})
    made: Site = Site(root, requestFactory=requests, timeout=60, reactor=reactor)
    made.log = _no_access_log  # type: ignore[method-assign,assignment]
    return made


def _no_access_log(_: HTTPRequest) -> None:
    """Write nothing."""
