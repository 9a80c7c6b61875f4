"""`callback:URL` and `session:URL`: the application is asked who a token, or one of its own sessions, belongs to.

It is sent a GET with the token as `Authorization: Bearer`, or with the client's `Cookie`, and the client's address in
`X-Forwarded-For`. It answers 200 with an identity, `{"user": 7, "name": "ada", "grants": {"subscribe": [], "emit": []},
"expires": 1767225600}`, or as AWX's `/api/v2/me/` does, `{"results": [{"id": 7, "username": "ada"}]}`. 401 and 403 mean
no. Anything else means that nobody knows now.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from zope.interface import implementer

from towerbus.access import Identity
from towerbus.auth.asking import DEADLINE, IN_FLIGHT, Answer, Application
from towerbus.auth.identities import GivenGrants, Moment, Name, UserText, digest
from towerbus.auth.interface import Credential, IAuthenticator, Kind, NotNow
from towerbus.auth.recent import Recent, Shared

KEEP = 30.0
"""Seconds that a yes is remembered."""
REMEMBERED = 10_000
"""Answers that are remembered, at the most."""
OK, UNAUTHORIZED, FORBIDDEN = 200, 401, 403


class _Me(msgspec.Struct, frozen=True):
    """One of the results of AWX's `/api/v2/me/`."""

    id: int
    username: Name = ""


class _Known(msgspec.Struct, frozen=True):
    """What a 200 may say."""

    user: int | UserText | None = None
    name: Name | None = None
    grants: GivenGrants | None = None
    expires: Moment | None = None
    results: tuple[_Me, ...] | None = None


@implementer(IAuthenticator)
class ApplicationAuthenticator:
    """Asks the application who the client is, and remembers its yes for a while.

    Args:
        kind: The kind of credentials that it asks about.
        url: Where to ask.
        reactor: Connects.
        deadline: Seconds that the application gets.
        keep: Seconds that a yes is remembered.
        in_flight: Requests at once, at the most.
        clock: Keeps the deadline and the memory; the reactor where it is None.
        now: Tells the seconds since the epoch of Unix.

    Raises:
        ConfigError: The URL can't be asked.
    """

    def __init__(
        self,
        kind: Kind,
        url: str,
        reactor: Any,
        *,
        deadline: float = DEADLINE,
        keep: float = KEEP,
        in_flight: int = IN_FLIGHT,
        clock: Any = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        option = "--auth callback:" if kind is Kind.TOKEN else "--auth session:"
        clock = reactor if clock is None else clock
        self._kind = kind
        self._application = Application(
            url, reactor, option=option, deadline=deadline, in_flight=in_flight, clock=clock
        )
        self._keep = keep
        self._seconds: Callable[[], float] = clock.seconds
        self._now = now
        self._known: Recent[bytes, Identity] = Recent(REMEMBERED, clock.seconds)
        self._asking: Shared[bytes, Identity | None] = Shared()

    def authenticate(self, credential: Credential) -> Identity | Deferred[Identity | None] | None:
        """Judge a credential; the answer is at hand where the application said yes a moment ago."""
        if credential.kind is not self._kind or not _sendable(credential.secret):
            return None
        key = _key(credential)
        identity = self._known.get(key)
        if identity is not None:
            return identity
        return self._asking.ask(key, lambda: Deferred.fromCoroutine(self._ask(key, credential)))

    async def close(self) -> None:
        """End what is in flight, and close the connections to the application."""
        await self._application.close()

    async def _ask(self, key: bytes, credential: Credential) -> Identity | None:
        identity = self._judged(await self._application.ask("GET", _headers(credential)))
        if identity is None:
            return None
        keep = self._keep
        if identity.expires is not None:
            left = identity.expires - self._now()
            if left <= 0:
                return None
            keep = min(keep, left)
        self._known.put(key, identity, self._seconds() + keep)
        return identity

    def _judged(self, answer: Answer) -> Identity | None:
        if answer.status in {UNAUTHORIZED, FORBIDDEN}:
            return None
        if answer.status != OK:
            raise NotNow(f"{self._application.shown} answered {answer.status}; wanted 200, 401 or 403")
        try:
            known = msgspec.json.decode(answer.body, type=_Known)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotNow(f"{self._application.shown} answered 200 with no identity: {error}") from None
        return self._identity(known)

    def _identity(self, known: _Known) -> Identity | None:
        if known.user is not None:
            grants = (known.grants or GivenGrants()).grants
            return Identity(known.user, known.name or "", grants, known.expires)
        if known.results is None:
            raise NotNow(f"{self._application.shown} answered 200 with no identity: neither user nor results in it")
        if len(known.results) > 1:
            raise NotNow(f"{self._application.shown} answered 200 with {len(known.results)} users; wanted one")
        return Identity(known.results[0].id, known.results[0].username) if known.results else None


def callback(url: str, reactor: Any, **options: Any) -> ApplicationAuthenticator:
    """`callback:URL`: asks about tokens; the options are those of `ApplicationAuthenticator`."""
    return ApplicationAuthenticator(Kind.TOKEN, url, reactor, **options)


def session(url: str, reactor: Any, **options: Any) -> ApplicationAuthenticator:
    """`session:URL`: asks about the application's sessions; the options are those of `ApplicationAuthenticator`."""
    return ApplicationAuthenticator(Kind.SESSION, url, reactor, **options)


def _headers(credential: Credential) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if credential.kind is Kind.TOKEN:
        headers["Authorization"] = f"Bearer {credential.secret}"
    else:
        headers["Cookie"] = credential.cookie
    if credential.address:
        headers["X-Forwarded-For"] = credential.address
    return headers


def _key(credential: Credential) -> bytes:
    """Stands for all that the application is told, so that no answer is ever used for another question."""
    return digest(f"{credential.secret}\0{credential.cookie}\0{credential.address}")


def _sendable(secret: str) -> bool:
    """Whether a header can hold it: nobody's token or session has blanks or control characters in it."""
    return secret.isascii() and secret.isprintable() and " " not in secret and bool(secret)
