"""The emitter for Twisted programs: like `towerbus.Emitter`, with Deferreds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool, ResponseNeverReceived
from twisted.web.http_headers import Headers

from towerbus import posting
from towerbus.errors import NotConfirmed
from towerbus.posting import Attempts, EmitRefusedError

__all__ = ["AsyncEmitter", "EmitRefusedError", "NotConfirmed"]

_NEVER_SENT = (error.ConnectError, error.DNSLookupError, error.ConnectingCancelledError)


class AsyncEmitter:
    """Emits events from a program that runs a reactor.

    Args:
        reactor: Connects, and tells the time.
        url: The HTTP listener, such as `http://127.0.0.1:8052`; `TOWERBUS_URL` where it is not given.
        token: A token with grants to emit; without one it is the URL's `?token=`, and then `TOWERBUS_TOKEN`.
        timeout: Seconds that a call may take, with all that it tries again.

    Raises:
        ConfigError: The URL is not one of HTTP, or the token can't be one.
    """

    def __init__(
        self, reactor: Any, url: str | None = None, token: str | None = None, *, timeout: float = 10.0
    ) -> None:
        self._reactor = reactor
        self._target = posting.target(url, token)
        self._headers = {name: [value] for name, value in self._target.headers.items()}
        self._timeout = timeout
        self._pool = HTTPConnectionPool(reactor)
        self._http = HTTPClient(Agent(reactor, pool=self._pool))

    def emit(
        self,
        group: str,
        type: str | int,  # noqa: A002 - the glossary's word
        payload: Mapping[str, Any] | bytes,
        id: str | None = None,  # noqa: A002 - the glossary's word
    ) -> Deferred[str]:
        """Emit one event.

        Args:
            group: Its group.
            type: Its type, or an id.
            payload: A non-empty dict; dates, UUIDs and decimals in it become text. Bytes are JSON and stay as they are.
            id: Unique; an event that is emitted again with the same id is not repeated. Made where it is not given.

        Returns:
            A Deferred that fires with the event's id when the event is in the log. It fails with `NotConfirmed`,
            which carries the id, or with `PeerError` when the event, the token or its grants are not right. Cancelling
            it ends the trying; the event may have been taken by then.
        """
        return self.emit_many([{"group": group, "type": type, "payload": payload, "id": id}]).addCallback(_first)

    def emit_many(self, events: Iterable[Mapping[str, Any]]) -> Deferred[list[str]]:
        """Emit events in one request, in this order.

        Args:
            events: Each with `group`, `type`, `payload` and, where the caller has one, `id`.

        Returns:
            A Deferred that fires with their ids, or fails as `emit` does.
        """
        return Deferred.fromCoroutine(self._emitted(events))

    def close(self) -> Deferred[None]:
        """Let go of the connections. Fires when they are closed."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _emitted(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        body, ids = posting.body(events)
        if ids:
            await self._post(body, ids)
        return list(ids)

    async def _post(self, body: bytes, ids: tuple[str, ...]) -> None:
        """Post until it is confirmed or refused, or the time is over."""
        seconds = self._reactor.seconds
        end = seconds() + self._timeout
        attempts = Attempts(ids, self._timeout)
        while (left := end - seconds()) > 0:
            asked = Deferred.fromCoroutine(self._answer(body)).addTimeout(left, self._reactor)
            try:
                status, answer = await asked
            except Exception as failure:  # the kinds of failure of an Agent are many and grow
                if _cancelled(failure) and seconds() < end:
                    raise CancelledError from failure
                late = isinstance(failure, TimedOut) or _cancelled(failure)
                what = "no answer in time" if late else str(failure) or repr(failure)
                attempts.failed(f"{self._target.url}: {what}", sure=isinstance(failure, _NEVER_SENT))
            else:
                if attempts.confirmed(status, answer):
                    return
            await deferLater(self._reactor, attempts.pause(end - seconds()), lambda: None)
        raise attempts.given_up()

    async def _answer(self, body: bytes) -> tuple[int, bytes]:
        response = await self._http.post(
            self._target.url, data=body, headers=Headers(self._headers), allow_redirects=False
        )
        return response.code, await response.content()


def _cancelled(failure: Exception) -> bool:
    """Whether the caller, or the deadline, has ended it."""
    if isinstance(failure, ResponseNeverReceived):
        return any(reason.check(CancelledError) for reason in failure.reasons)
    return isinstance(failure, (CancelledError, error.ConnectingCancelledError))


def _first(ids: list[str]) -> str:
    return ids[0]
