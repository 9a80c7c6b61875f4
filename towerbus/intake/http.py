"""`POST /emit`: events over HTTP, answered when they are confirmed.

The token is judged before the body is taken in (`bounded.py`); `bodies.py` has what a body may be, docs/protocol.md the
answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

from towerbus import web
from towerbus.access import Identity
from towerbus.auth.credentials import credential
from towerbus.auth.interface import Credential, IAuthenticator, Kind, NotNow, Refused
from towerbus.errors import NoRoom, NotConfirmed, PeerError
from towerbus.event import MAX_PAYLOAD, Event
from towerbus.intake.bodies import LINES, MAX_EVENTS, TooLargeError, read
from towerbus.intake.bounded import MAX_BODY, BodyRefusedError, BoundedRequest, GoneError, Room
from towerbus.intake.connection import SECONDS
from towerbus.intake.interface import IIntake
from towerbus.intake.line import FULL
from towerbus.web import answer, error

_log = Logger()

MAX_UNDER_WAY = 256
"""Requests that may be judged, be received and wait for their confirmation at once."""
MAX_BYTES = 64 * 1024 * 1024
"""Bytes in the bodies of these requests, together; one alone may be larger."""
EVENT_BYTES = 256
"""Bytes that an event takes beside its payload: many tiny ones are larger than the body that they came in."""
SILENCE = 1.0
"""Seconds between two lines in the log about events that were not confirmed, at the least."""
AWAY = "the bus takes no events now; come back later (the server's log says why)"
DOUBT = "the bus has not answered; emit the same ids again, which repeats nothing (the server's log says more)"
"""What producers are told of a 503. What is wrong names hosts, users and files of the installation: that is logged."""
_STATUSES: Mapping[type[Exception], int] = {Refused: 401, TooLargeError: 413, PeerError: 400}


class EmitResource(Resource):
    """`/emit`.

    Args:
        intake: Where events go.
        authenticator: Knows the producers' tokens.
        clock: Tells the time.
        max_payload: Bytes in a payload, at the most.
        max_events: Events in a request, at the most.
        max_under_way: Requests that may be judged, be received and wait for their confirmation at once.
        max_bytes: Bytes in the bodies of these requests, together; one alone may be larger.
        anyone: Who posts without a token, where that is allowed: on a Unix socket, whose permissions decide.
    """

    isLeaf = True

    def __init__(
        self,
        intake: IIntake,
        authenticator: IAuthenticator,
        clock: Any,
        *,
        max_payload: int = MAX_PAYLOAD,
        max_events: int = MAX_EVENTS,
        max_under_way: int = MAX_UNDER_WAY,
        max_bytes: int = MAX_BYTES,
        anyone: Identity | None = None,
    ) -> None:
        super().__init__()
        self._anyone = anyone
        self._intake = intake
        self._authenticator = authenticator
        self._max_payload = max_payload
        self._max_events = max_events
        self._max_under_way = max_under_way
        self._room = Room(max_bytes)
        self._under_way = 0
        self._clock = clock
        self._unconfirmed = 0
        self._silent_until = -math.inf

    def render(self, request: BoundedRequest) -> Any:
        """Answer a request; its body has not been received yet."""
        if request.method != b"POST":
            request.setHeader(b"Allow", b"POST")
            return error(request, 405, "only POST is understood here")
        shown = _shown(request)
        if shown is None and self._anyone is None:
            return error(request, 401, "no token: send Authorization: Bearer TOKEN, or ?token=TOKEN")
        if self._under_way >= self._max_under_way:
            return error(request, 429, f"{self._under_way} requests are under way; come back later")
        self._under_way += 1
        Deferred.fromCoroutine(self._answer(request, shown))
        return NOT_DONE_YET

    async def _answer(self, request: BoundedRequest, shown: Credential | None) -> None:
        try:
            body = await self._emit(request, shown)
        except GoneError:
            return
        except Exception as failed:  # noqa: BLE001 - whatever it is, it is answered
            if isinstance(failed, NotConfirmed):
                self._log_unconfirmed(failed.reason)
            body = _failed(failed, request)
        finally:
            self._under_way -= 1
            request.release()
        if not request.gone:
            request.write(body)
            request.finish()

    async def _emit(self, request: BoundedRequest, shown: Credential | None) -> bytes:
        judged = self._anyone if shown is None or self._anyone else self._authenticator.authenticate(shown)
        identity = await judged if isinstance(judged, Deferred) else judged
        if identity is None:
            return error(request, 401, "the token is not known here")
        if not identity.grants.emit:
            return error(request, 403, "the token has no grant to emit anything")
        events = self._events(await request.receive(self._room), request)
        request.take(EVENT_BYTES * len(events))
        refused = _refused(events, identity)
        if refused is not None:
            return error(request, 403, f"the token has no grant to emit to {refused}")
        await self._intake.emit(events)
        return answer(request, 202, {"accepted": len(events)})

    def _log_unconfirmed(self, reason: str) -> None:
        """Say why; while the bus is away every request would be a line."""
        self._unconfirmed += 1
        now = self._clock.seconds()
        if now < self._silent_until:
            return
        self._silent_until = now + SILENCE
        _log.warn(
            "emits_unconfirmed: {count} requests were answered with 503: {reason}",
            count=self._unconfirmed,
            reason=reason,
        )
        self._unconfirmed = 0

    def _events(self, body: bytes, request: BoundedRequest) -> list[Event]:
        media_type = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower().decode("latin-1")
        return read(body, self._max_payload, lines=media_type in LINES, max_events=self._max_events)


def _refused(events: Sequence[Event], identity: Identity) -> str | None:
    """The first topic that the identity may not emit to."""
    for topic in dict.fromkeys(event.topic for event in events):
        if not identity.grants.may_emit(topic):
            return f"{topic.group}/{topic.type}"
    return None


def _shown(request: BoundedRequest) -> Credential | None:
    """The token, from the header or the URL only: a cookie would let any page emit."""
    authorization = (request.getHeader(b"authorization") or b"").decode("utf-8", "replace")
    query = request.uri.partition(b"?")[2].decode("utf-8", "replace")
    shown = credential(
        params=parse_qs(query, keep_blank_values=True) if query else {},
        headers={"authorization": authorization} if authorization else {},
        protocols=(),
        address=str(getattr(request.client, "host", "")),
    )
    return shown if shown is not None and shown.kind is Kind.TOKEN else None


def _failed(failed: Exception, request: BoundedRequest) -> bytes:
    """The answer for what was raised."""
    if isinstance(failed, NotConfirmed):
        return answer(request, 503, {"error": _public(failed), "taken": not failed.sure, "ids": list(failed.ids)})
    if isinstance(failed, NotNow):
        return error(request, 503, "the token can't be judged now; come back later")
    if isinstance(failed, BodyRefusedError):
        return error(request, failed.status, str(failed))
    status = next((status for kind, status in _STATUSES.items() if isinstance(failed, kind)), 500)
    if status == 500:  # noqa: PLR2004 - HTTP's own number
        _log.failure("emit_failed")
        return error(request, status, "internal error")
    return error(request, status, str(failed))


def _public(failed: NotConfirmed) -> str:
    """What a producer may know of a reason."""
    if isinstance(failed, NoRoom):
        return failed.reason
    if not failed.sure:
        return DOUBT
    return FULL if failed.reason.startswith(FULL) else AWAY


def site(
    intake: IIntake,
    authenticator: IAuthenticator,
    reactor: Any,
    *,
    max_payload: int = MAX_PAYLOAD,
    max_events: int = MAX_EVENTS,
    max_body: int = MAX_BODY,
    max_under_way: int = MAX_UNDER_WAY,
    max_bytes: int = MAX_BYTES,
    seconds: float = SECONDS,
    children: Mapping[bytes, IResource] | None = None,
) -> Site:
    """The HTTP listener's site: `/emit`, and what else is given.

    Args:
        intake: Where events go.
        authenticator: Knows the producers' tokens.
        reactor: Keeps the time limits of connections.
        max_payload: Bytes in a payload, at the most.
        max_events: Events in a request, at the most.
        max_body: Bytes in a request's body, at the most.
        max_under_way: Requests that may be judged, be received and wait for their confirmation at once.
        max_bytes: Bytes in the bodies of these requests, together.
        seconds: For a request's head, counted from the answer before it, and then for its body.
        children: Other resources, by path: `{b"readyz": ...}`.
    """
    emit = EmitResource(
        intake,
        authenticator,
        reactor,
        max_payload=max_payload,
        max_events=max_events,
        max_under_way=max_under_way,
        max_bytes=max_bytes,
    )
    return web.site({b"emit": emit, **(children or {})}, reactor, max_body=max_body, seconds=seconds)
