"""`/debug/sessions`: who is connected, and what each hears, for a person who looks for one client's trouble.

It is for those whose token has the grant to subscribe to everything (`*`): it shows what others hear. It never shows a
credential.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from towerbus.auth.credentials import credential
from towerbus.auth.interface import IAuthenticator, Kind, NotNow, Refused
from towerbus.web import answer, error

if TYPE_CHECKING:
    from towerbus.wire.factory import EventsFactory
    from towerbus.wire.websocket import EventsProtocol

MOST = 1000
"""Sessions in one answer, at the most."""
TOPICS = 50
"""Names of topics of one session, at the most."""
_log = Logger()


class Sessions(Resource):
    """`/debug/sessions`, with `?user=7` and `?limit=100`.

    Args:
        factory: Whose connections they are.
        authenticator: Knows the tokens.
    """

    isLeaf = True

    def __init__(self, factory: EventsFactory, authenticator: IAuthenticator) -> None:
        super().__init__()
        self._factory = factory
        self._authenticator = authenticator

    def render(self, request: Request) -> Any:
        """Answer, when it is known who asks."""
        if request.method != b"GET":
            request.setHeader(b"Allow", b"GET")
            return error(request, 405, "only GET is understood here")
        request.setHeader(b"Cache-Control", b"no-store")
        gone: list[bool] = []
        request.notifyFinish().addErrback(lambda _: gone.append(True))
        Deferred.fromCoroutine(self._answer(request, gone))
        return NOT_DONE_YET

    async def _answer(self, request: Request, gone: list[bool]) -> None:
        try:
            body = await self._judged(request)
        except (Refused, NotNow) as known:
            body = error(request, 503 if isinstance(known, NotNow) else 401, str(known))
        except Exception:  # noqa: BLE001 - whatever it is, it is answered
            _log.failure("sessions_failed")
            body = error(request, 500, "internal error")
        if not gone:
            request.write(body)
            request.finish()

    async def _judged(self, request: Request) -> bytes:
        header = (request.getHeader(b"authorization") or b"").decode("utf-8", "replace")
        shown = credential(params={}, headers={"authorization": header}, protocols=())
        if shown is None or shown.kind is not Kind.TOKEN:
            return error(request, 401, "no token: send Authorization: Bearer TOKEN")
        judged = self._authenticator.authenticate(shown)
        identity = await judged if isinstance(judged, Deferred) else judged
        if identity is None:
            return error(request, 401, "the token is not known here")
        if not identity.grants.sees_everything:
            return error(request, 403, 'the token has no grant to see everything: it needs subscribe = ["*"]')
        return self._shown(request)

    def _shown(self, request: Request) -> bytes:
        asked = parse_qs(request.uri.partition(b"?")[2].decode("utf-8", "replace"))
        user = asked.get("user", [None])[0]
        limit = asked.get("limit", [str(MOST)])[0]
        if not limit.isascii() or not limit.isdigit() or len(limit) > len(str(MOST)):
            return error(request, 400, f"limit: got {limit[:20]!r}, wanted a number up to {MOST}")
        wires = [wire for wire in self._factory.wires if user is None or _user(wire) == user]
        most = min(int(limit), MOST)
        return answer(request, 200, {"count": len(wires), "sessions": list(islice(self._told(wires), most))})

    def _told(self, wires: list[EventsProtocol]) -> Iterator[dict[str, object]]:
        names = {spoken: name for name, spoken in self._factory.spoken.items()}
        for wire in wires:
            session, outlet = wire.session, wire.outlet
            peer = wire.transport.getPeer()
            topics = [] if session is None else session.heard.names
            identity = None if session is None else session.identity
            yield {
                "user": None if identity is None else identity.user,
                "name": "" if identity is None else identity.name,
                "expires": None if identity is None else identity.expires,
                "dialect": names[wire.spoken],
                "compressed": wire.deflates,
                "state": "handshake" if session is None else session.state.value,
                "peer": f"{getattr(peer, 'host', '')}:{getattr(peer, 'port', '')}",
                "topics": topics[:TOPICS],
                "topics_count": len(topics),
                "outbox_bytes": 0 if outlet is None else outlet.waiting,
            }


def _user(wire: EventsProtocol) -> str | None:
    session = wire.session
    return None if session is None or session.identity is None else str(session.identity.user)
