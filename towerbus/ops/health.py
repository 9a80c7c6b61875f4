"""`/healthz` and `/readyz`: is the process alive, and does it do its work?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Request

from towerbus.web import answer, error


class Page(Resource):
    """What may only be looked at."""

    isLeaf = True

    def render(self, request: Request) -> Any:
        """Answer GET and HEAD."""
        if request.method not in {b"GET", b"HEAD"}:
            request.setHeader(b"Allow", b"GET, HEAD")
            return error(request, 405, "only GET is understood here")
        request.setHeader(b"Cache-Control", b"no-store")
        return self.shown(request)

    def shown(self, request: Request) -> bytes:
        """The answer's body."""
        raise NotImplementedError


class Alive(Page):
    """`/healthz`: 200 as long as the reactor turns. A process that isn't ready is not mended by ending it."""

    def shown(self, request: Request) -> bytes:
        """Say so."""
        return answer(request, 200, {"alive": True})


class Ready(Page):
    """`/readyz`: 200 where all is well, and 503 with the reasons where clients should be sent to another server.

    Args:
        broken: Tells what is not in order: the reasons by hop; empty where all is.
        facts: Tells what else is to be shown.
    """

    def __init__(self, broken: Callable[[], Mapping[str, str]], facts: Callable[[], Mapping[str, object]]) -> None:
        super().__init__()
        self._broken = broken
        self._facts = facts

    def shown(self, request: Request) -> bytes:
        """Say how it is."""
        broken = self._broken()
        return answer(request, 503 if broken else 200, {"ready": not broken, "broken": broken, **self._facts()})
