"""The emitter for Twisted programs: like `towerbus.Emitter`, with Deferreds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool, ResponseNeverReceived
from twisted.web.http_headers import Headers

from towerbus import posting
from towerbus.errors import NotConfirmed
from towerbus.event import MAX_PAYLOAD, Event
from towerbus.posting import Attempts, EmitRefusedError

__all__ = ["AsyncEmitter", "EmitRefusedError", "NotConfirmed"]

_NEVER_SENT = (error.ConnectError, error.DNSLookupError, error.ConnectingCancelledError)
_log = Logger()


class AsyncEmitter:
    """Emits events from a program that runs a reactor.

    There is nothing to start: the first emit makes the connection. Over AMQP it is then kept, with heartbeats, and made
    again when it is lost, until `close`; over HTTP it is kept for the next call. A program should wait for the Deferred
    of `close` before its reactor stops, best in a service's `stopService`, or the broker is left without a goodbye.

    Args:
        reactor: Connects, and tells the time.
        url: As `towerbus.Emitter` has it, like the next three.
        token: For HTTP only.
        timeout: Seconds.
        max_payload: Bytes, over AMQP.

    Raises:
        ConfigError: The URL is not one of HTTP or AMQP, or the token can't be one.
    """

    def __init__(
        self,
        reactor: Any,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        address = posting.address(url)
        self._limit = sys.maxsize
        self._way: _Way
        if posting.is_amqp(address):
            if token:
                _log.warn(posting.NEEDLESS)
            self._way = _Publishes(reactor, address, timeout)
            self._limit = max_payload
        else:
            self._way = _Posts(reactor, address, token, timeout)

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
            A Deferred that fires with the event's id when the event is in the log, or in an intake that survives the
            death of any process. It fails with `NotConfirmed`, which carries the id, or with `PeerError` when the
            event, the token or its grants are not right. Cancelling it ends the trying; the event may have been taken
            by then.
        """
        return self.emit_many([{"group": group, "type": type, "payload": payload, "id": id}]).addCallback(_first)

    def emit_many(self, events: Iterable[Mapping[str, Any]]) -> Deferred[list[str]]:
        """Emit events in this order; over AMQP also in that of the calls, which need not wait for each other.

        Args:
            events: Each with `group`, `type`, `payload` and, where the caller has one, `id`; over HTTP they are one
                request.

        Returns:
            A Deferred that fires with their ids, or fails as `emit` does.
        """
        return Deferred.fromCoroutine(self._emitted(events))

    def close(self) -> Deferred[None]:
        """Let go of the connections; over AMQP what waits is published before, in bounded time.

        Returns:
            A Deferred that fires when they are closed. An emitter that is used again makes new ones.
        """
        return self._way.close()

    async def _emitted(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        made = posting.events(events, self._limit)
        if made:
            await self._way.emit(made)
        return [event.id for event in made]


class _Way(Protocol):
    """How events get in."""

    def emit(self, events: Sequence[Event]) -> Deferred[None]:
        """Put events in, in this order; fires when they are confirmed."""

    def close(self) -> Deferred[None]:
        """Let go of the connections."""


class _Publishes:
    """Puts events in over AMQP."""

    def __init__(self, reactor: Any, url: str, timeout: float) -> None:
        # pika, and the reactor that it imports, are for those who need them.
        from towerbus.amqp.intake import AmqpIntake
        from towerbus.amqp.url import parse

        broker = parse(url)
        self._make = lambda: AmqpIntake(broker, reactor, timeout=timeout, grace=timeout, patient=True, name="emitter")
        self._intake: AmqpIntake | None = None

    def emit(self, events: Sequence[Event]) -> Deferred[None]:
        """Put events in, in this order; fires when they are confirmed."""
        if self._intake is None:
            self._intake = self._make()
            self._intake.startService()
        return self._intake.emit(events)

    def close(self) -> Deferred[None]:
        """Let go of the connection."""
        intake, self._intake = self._intake, None
        return intake.stopService() if intake is not None else succeed(None)


class _Posts:
    """Puts events in over HTTP."""

    def __init__(self, reactor: Any, url: str, token: str | None, timeout: float) -> None:
        self._reactor = reactor
        self._target = posting.target(url, token)
        self._headers = {name: [value] for name, value in self._target.headers.items()}
        self._timeout = timeout
        self._pool = HTTPConnectionPool(reactor)
        self._http = HTTPClient(Agent(reactor, pool=self._pool))

    def emit(self, events: Sequence[Event]) -> Deferred[None]:
        """Post until it is confirmed or refused, or the time is over."""
        return Deferred.fromCoroutine(self._post(posting.body(events), tuple(event.id for event in events)))

    def close(self) -> Deferred[None]:
        """Let go of the connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _post(self, body: bytes, ids: tuple[str, ...]) -> None:
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
