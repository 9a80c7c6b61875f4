"""Emits the bench's events over HTTP, on one connection, so that their order is known."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from towerbus import posting
from towerbus.bench.client import said
from towerbus.bench.content import Content
from towerbus.bench.schedule import Schedule
from towerbus.errors import TowerbusError
from towerbus.event import Event

TIMEOUT = 20.0
"""Seconds in which events must be confirmed, at the most."""
REACH = 5.0
"""Seconds in which the listener must be reached, before clients are put to work."""


class Publisher:
    """Puts events in, and returns when they are confirmed.

    Args:
        url: The HTTP listener's.
        token: A token with grants to emit.
        schedule: Which events there are.
        content: What is in them.
        tls: How to talk TLS, for `https:`.
        patience: Seconds in which events must be confirmed, where that is less than `TIMEOUT`.

    Raises:
        ConfigError: The URL or the token can't be one.

    Attributes:
        url: Where they go: the path of the emits, without a token.
        retried: How often the server asked to be tried again, or did not answer.
    """

    def __init__(
        self,
        url: str,
        token: str,
        schedule: Schedule,
        content: Content,
        tls: ssl.SSLContext | None,
        patience: float,
    ) -> None:
        self._target = posting.target(url, token)
        self._schedule, self._content = schedule, content
        self.url = self._target.url
        parts = urlsplit(self.url)
        self._path = parts.path
        host = parts.hostname or ""
        self._timeout = min(TIMEOUT, patience)
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, parts.port, timeout=self._timeout, context=tls)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=self._timeout)
        )
        self.retried = 0

    def check(self) -> None:
        """See that the listener can be reached at all.

        Raises:
            TowerbusError: It can't.
        """
        connection = self._connection
        connection.timeout = min(self._timeout, REACH)
        try:
            connection.connect()
        except OSError as error:
            odd = isinstance(error, TimeoutError | ssl.SSLError) and not isinstance(error, ssl.SSLCertVerificationError)
            hint = "; does that port speak TLS?" if odd and isinstance(connection, http.client.HTTPSConnection) else ""
            raise TowerbusError(f"--http: can't connect to {self.url}: {said(error)}{hint}") from None
        finally:
            connection.close()
            connection.timeout = self._timeout

    def body(self, numbers: Sequence[int]) -> bytes:
        """The body of a request with these events."""
        topics, plan, made = self._schedule.topics, self._schedule.plan, self._content
        return posting.body(
            Event(topics[plan[number]], made.payload(number), made.id(number), 0.0) for number in numbers
        )

    def emit(self, numbers: Sequence[int], body: bytes) -> None:
        """Emit events; try again, with the same ids, what the server can't take now.

        Raises:
            NotConfirmed: They were not confirmed in time.
            PeerError: They are refused for good: the token has no grant to emit to a topic.
        """
        end = time.monotonic() + self._timeout
        attempts = posting.Attempts(tuple(self._content.id(number) for number in numbers), self._timeout)
        while (left := end - time.monotonic()) > 0:
            try:
                status, said = self._post(body)
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                attempts.failed(f"{self.url}: {error or type(error).__name__}", sure=False)
            else:
                if attempts.confirmed(status, said):
                    return
            self.retried += 1
            time.sleep(attempts.pause(left))
        raise attempts.given_up()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _post(self, body: bytes) -> tuple[int, bytes]:
        connection = self._connection
        connection.request("POST", self._path, body, self._target.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
