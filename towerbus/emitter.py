"""The emitter for threads and WSGI processes: puts events in over HTTP or AMQP, and returns when they are confirmed."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

import urllib3

from towerbus import posting
from towerbus.errors import NotConfirmed
from towerbus.event import MAX_PAYLOAD, Event
from towerbus.posting import Attempts, EmitRefusedError, emit_url

__all__ = ["EmitRefusedError", "Emitter", "NotConfirmed", "emit_url"]

CONNECTIONS = 16
"""Connections over HTTP that are kept for the next call."""
_log = logging.getLogger(__name__)


class Emitter:
    """Emits events; may be shared by threads, and used on both sides of a fork.

    Over HTTP events go to a server, which asks who emits; over AMQP straight to the broker, whose user and password in
    the URL decide. To the broker an emitter has one connection in each process, made when it first emits there, shared
    by all threads, and kept alive by a thread of its own (under uWSGI that needs `enable-threads`).

    Args:
        url: The HTTP listener, such as `http://127.0.0.1:8052`, or the broker, such as `amqp://user:password@host/vhost`
            (`amqps:` for TLS); `TOWERBUS_URL` where it is not given.
        token: A token with grants to emit; without one it is the URL's `?token=`, and then `TOWERBUS_TOKEN`. It is for
            HTTP only.
        timeout: Seconds that a call may take, with all that it tries again. (Over HTTP the system's resolver has its
            own.)
        max_payload: Bytes in a payload, at the most, over AMQP: what the worker has as `--max-payload`, since it would
            put aside a larger one when nobody waits for its answer any more.

    Raises:
        ConfigError: The URL is not one of HTTP or AMQP, or the token can't be one.
    """

    def __init__(
        self,
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
            # pika is for those who need it.
            from towerbus.amqp.blocking import BlockingIntake
            from towerbus.amqp.url import parse

            if token:
                _log.warning(posting.NEEDLESS)
            self._way = BlockingIntake(parse(address), timeout)
            self._limit = max_payload
        else:
            self._way = _Posts(address, token, timeout)

    def emit(self, group: str, type: str | int, payload: Mapping[str, Any] | bytes, id: str | None = None) -> str:  # noqa: A002
        """Emit one event.

        Args:
            group: Its group.
            type: Its type, or an id.
            payload: A non-empty dict; dates, UUIDs and decimals in it become text. Bytes are JSON and stay as they are.
            id: Unique; an event that is emitted again with the same id is not repeated. Made where it is not given.

        Returns:
            The event's id: the event is in the log, or in an intake that survives the death of any process.

        Raises:
            NotConfirmed: There was no confirmation in time; it carries the id, for trying again.
            PeerError: The event, the token or its grants are not right; nothing was taken.
        """
        return self.emit_many([{"group": group, "type": type, "payload": payload, "id": id}])[0]

    def emit_many(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        """Emit events in this order.

        Args:
            events: Each with `group`, `type`, `payload` and, where the caller has one, `id`; over HTTP, where they are
                one request, 16 MiB in all, by default.

        Returns:
            Their ids: all of them are confirmed.

        Raises:
            NotConfirmed: As `emit`, with all the ids.
            PeerError: As `emit`; not one of them was taken.
        """
        made = posting.events(events, self._limit)
        if made:
            self._way.emit(made)
        return [event.id for event in made]

    def close(self) -> None:
        """Let go of the connections. An emitter that is used again makes new ones."""
        self._way.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Way(Protocol):
    """How events get in."""

    def emit(self, events: Sequence[Event]) -> None:
        """Put events in, in this order, and return when they are confirmed."""

    def close(self) -> None:
        """Let go of the connections."""


class _Posts:
    """Puts events in over HTTP."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        self._target = posting.target(url, token)
        self._timeout = timeout
        # The process that made the pool, and the pool. It is replaced as a whole: a lock could be held by another
        # thread in the moment of a fork, and would then be held for ever in the child.
        self._pool: tuple[int, urllib3.PoolManager] | None = None

    def emit(self, events: Sequence[Event]) -> None:
        """Post until it is confirmed or refused, or the time is over."""
        body = posting.body(events)
        end = time.monotonic() + self._timeout
        attempts = Attempts(tuple(event.id for event in events), self._timeout)
        while (left := end - time.monotonic()) > 0:
            try:
                answer = self._connections().request(
                    "POST", self._target.url, body=body, headers=self._target.headers, retries=False, redirect=False,
                    timeout=urllib3.Timeout(total=left),
                )  # fmt: skip
            except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
                attempts.failed(f"{self._target.url} can't be reached: {error}", sure=True)
            except urllib3.exceptions.HTTPError as error:
                attempts.failed(f"{self._target.url} did not answer: {error}", sure=False)
            else:
                if attempts.confirmed(answer.status, answer.data):
                    return
            time.sleep(attempts.pause(end - time.monotonic()))
        raise attempts.given_up()

    def close(self) -> None:
        """Let go of the connections."""
        pool, self._pool = self._pool, None
        if pool is not None and pool[0] == os.getpid():
            pool[1].clear()

    def _connections(self) -> urllib3.PoolManager:
        """The pool of this process: a fork must not share sockets with its parent."""
        pool = self._pool
        if pool is None or pool[0] != os.getpid():
            pool = self._pool = (os.getpid(), urllib3.PoolManager(maxsize=CONNECTIONS))
        return pool[1]
