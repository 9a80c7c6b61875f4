"""Asks the application over HTTP: with a deadline, bounded in every direction, and without a memory between users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.error import ConnectError, ConnectionDone, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from towerbus.auth.interface import NotNow
from towerbus.errors import ConfigError

DEADLINE = 5.0
"""Seconds that the application gets to answer."""
IN_FLIGHT = 50
"""Requests that one plugin has in flight, at the most; the others wait their turn."""
MAX_BODY = 1024 * 1024
"""Bytes that are read of an answer, at the most."""


class Answer(NamedTuple):
    """What the application answered."""

    status: int
    body: bytes


class Application:
    """One URL of the application's.

    Redirects are not followed, as one to a login page is no yes, and every request begins without cookies: one that the
    application sets in an answer about one user must not go along with a question about the next.

    Args:
        url: An `http:` or `https:` URL.
        reactor: Connects.
        option: What the user wrote before the URL, for errors: `--auth callback:`.
        deadline: Seconds for one question, the wait for its turn included.
        in_flight: Requests at once, at the most.
        clock: Keeps the deadline; the reactor where it is None.

    Raises:
        ConfigError: The URL can't be asked.
    """

    def __init__(
        self,
        url: str,
        reactor: Any,
        *,
        option: str,
        deadline: float = DEADLINE,
        in_flight: int = IN_FLIGHT,
        clock: Any = None,
    ) -> None:
        self.shown = checked(url, option)
        self._url = url
        self._reactor = reactor
        self._clock = reactor if clock is None else clock
        self._deadline = deadline
        self._turns = DeferredSemaphore(in_flight)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = in_flight
        self._pool.retryAutomatically = False
        self._pooled = Agent(reactor, pool=self._pool)
        self._unpooled = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        self._asked: set[Deferred[Any]] = set()

    def ask(self, method: str, headers: Mapping[str, str], body: bytes | None = None) -> Deferred[Answer]:
        """Send one request, and wait for the whole answer, whatever its status.

        Returns:
            A Deferred that fails with `NotNow` where there is no whole answer in time, and with `CancelledError` where
            it is cancelled.
        """
        asked = Deferred.fromCoroutine(self._in_turn(method, headers, body))
        self._asked.add(asked)
        asked.addTimeout(self._deadline, self._clock, onTimeoutCancel=self._too_late)
        # Its own, for a connection that is cancelled fails with one of many errors: who cancels must not read it as an
        # application that can't be asked, and ask again.
        outcome: Deferred[Answer] = Deferred(lambda cancelled: _give_up(cancelled, asked))
        asked.addBoth(self._done, asked).addBoth(_tell, outcome)
        return outcome

    async def close(self) -> None:
        """End what is in flight, with `NotNow`, and close the connections that are kept."""
        for asked in tuple(self._asked):
            asked.cancel()
        # A connection goes back to the pool only after its answer's last byte was told of: in this turn, but later.
        await deferLater(self._reactor, 0)
        await self._pool.closeCachedConnections()

    async def _in_turn(self, method: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        # Half the deadline at the most in the queue: who comes out of it too late to be answered would only cost the
        # application work that nobody waits for.
        await self._turns.acquire().addTimeout(self._deadline / 2, self._clock)
        try:
            try:
                return await self._request(self._pooled, method, headers, body)
            except ResponseNeverReceived as error:
                if not _was_closed(error):
                    raise
                # A kept connection that the application closed at that moment. All questions may be repeated.
                return await self._request(self._unpooled, method, headers, body)
        finally:
            self._turns.release()

    async def _request(self, agent: Agent, method: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        sent = {name.encode("ascii"): [_octets(value)] for name, value in headers.items()}
        response = await HTTPClient(agent).request(
            method,
            self._url,
            headers=Headers(sent),
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        reader = _Body(MAX_BODY)
        response.deliverBody(reader)
        return Answer(response.code, await reader.whole)

    def _too_late(self, _: object, deadline: float) -> Answer:
        raise NotNow(f"{self.shown} did not answer within {deadline:g} s")

    def _done(self, answer: Any, asked: Deferred[Any]) -> Any:
        self._asked.discard(asked)
        if not isinstance(answer, Failure) or answer.check(NotNow):
            return answer
        if answer.check(TimedOut):
            raise NotNow(f"{self.shown} has too many questions before it")
        raise NotNow(f"{self.shown} can't be asked: {_why(answer)}")


def _give_up(outcome: Deferred[Answer], asked: Deferred[Any]) -> None:
    outcome.errback(CancelledError())
    asked.cancel()


def _tell(answer: Any, outcome: Deferred[Answer]) -> None:
    if not outcome.called:
        outcome.callback(answer)


class _Body(Protocol):
    """Reads a body, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.whole: Deferred[bytes] = Deferred(self._abort)
        self._limit = limit
        self._read = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._read += data
        if len(self._read) > self._limit and not self.whole.called:
            self._abort()
            self.whole.errback(NotNow(f"the application's answer is longer than {self._limit} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # the latter: an answer that ends with its connection
            self.whole.callback(bytes(self._read))
        else:
            self.whole.errback(reason)

    def _abort(self, _: object = None) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def checked(url: str, option: str) -> str:
    """The URL as it may be shown: without user, query and fragment."""
    wanted = "wanted http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{option}: got a URL that can't be read, {wanted}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isascii() or not url.isprintable():
        raise ConfigError(f"{option}: got {url!r}, {wanted}")
    if parts.username is not None or parts.password is not None or " " in url:
        raise ConfigError(f"{option}: got a URL with a user, a password or a blank in it, {wanted}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"


def _octets(text: str) -> bytes:
    """A header's value as it came in: HTTP's octets are read as ISO 8859-1."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _was_closed(error: ResponseNeverReceived) -> bool:
    return any(reason.check(ConnectionDone) for reason in error.reasons) and not any(
        reason.check(CancelledError) for reason in error.reasons
    )


def _why(failure: Failure) -> str:
    """What went wrong, in words that can hold nothing of the request."""
    if failure.check(ConnectError, DNSLookupError):
        return failure.getErrorMessage()
    reasons = getattr(failure.value, "reasons", None) or [failure]
    return ", ".join(reason.type.__name__ for reason in reasons)
