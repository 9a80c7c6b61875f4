"""The emitter for threads and WSGI processes: puts events in over HTTP, and returns when they are confirmed."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import urllib3

from towerbus import topics
from towerbus.errors import ConfigError, NotConfirmed, PeerError
from towerbus.event import checked_id, new_id

__all__ = ["EmitRefusedError", "Emitter", "NotConfirmed"]

URL = "TOWERBUS_URL"
TOKEN = "TOWERBUS_TOKEN"  # noqa: S105 - the variable's name
DEFAULT_URL = "http://127.0.0.1:8052"
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
_NOT_NOW = frozenset({429, 502, 503, 504})


class EmitRefusedError(PeerError):
    """The server refused the events for good: the token, the address or the payload is not right.

    Args:
        status: The HTTP status.
        text: What the server said.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Emitter:
    """Emits events; may be shared by threads, and used on both sides of a fork.

    Args:
        url: The HTTP listener, such as `http://127.0.0.1:8052`; `TOWERBUS_URL` where it is not given.
        token: A token with grants to emit; `TOWERBUS_TOKEN` where it is not given.
        timeout: Seconds that a call may take, with all that it tries again.

    Raises:
        ConfigError: The URL is not one of HTTP.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, timeout: float = 10.0) -> None:
        self._url = emit_url(url or os.environ.get(URL) or DEFAULT_URL)
        given = token or os.environ.get(TOKEN)
        self._headers = {"Content-Type": "application/x-ndjson"} | (
            {"Authorization": f"Bearer {given}"} if given else {}
        )
        self._timeout = timeout
        self._lock = threading.Lock()
        self._pool: urllib3.PoolManager | None = None
        self._owner = 0

    def emit(self, group: str, type: str | int, payload: Mapping[str, Any] | bytes, id: str | None = None) -> str:  # noqa: A002
        """Emit one event.

        Args:
            group: Its group.
            type: Its type, or an id.
            payload: A non-empty dict; dates, UUIDs and decimals in it become text. Bytes are taken for JSON.
            id: Unique; an event that is emitted again with the same id is not repeated. Made where it is not given.

        Returns:
            The event's id: the event is in the log.

        Raises:
            NotConfirmed: There was no confirmation in time; it carries the id, for trying again.
            PeerError: The event, the token or its grants are not right; nothing was taken.
        """
        return self.emit_many([{"group": group, "type": type, "payload": payload, "id": id}])[0]

    def emit_many(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        """Emit events in one request, in this order: all of them are taken, or none is.

        Args:
            events: Each with `group`, `type`, `payload` and, where the caller has one, `id`.

        Returns:
            Their ids.

        Raises:
            NotConfirmed: As `emit`, with all the ids.
            PeerError: As `emit`.
        """
        ids, lines = [], []
        for event in events:
            address = topics.emittable(event["group"], event["type"])
            ids.append(new_id() if event.get("id") is None else checked_id(str(event["id"])))
            payload = event["payload"]
            text = payload if isinstance(payload, bytes) else encode(payload)
            lines.append(
                msgspec.json.encode(
                    {
                        "group": address.group,
                        "type": address.type,
                        "id": ids[-1],
                        "payload": msgspec.Raw(one_line(text)),
                    }
                )
            )
        if ids:
            self._post(b"\n".join(lines), tuple(ids))
        return ids

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, body: bytes, ids: tuple[str, ...]) -> None:
        """Post until it is confirmed or refused, or the time is over."""
        end = time.monotonic() + self._timeout
        pause, sure, reason = FIRST_PAUSE, True, "there was no time to try"
        while (left := end - time.monotonic()) > 0:
            try:
                answer = self._connections().request(
                    "POST", self._url, body=body, headers=self._headers, retries=False, redirect=False,
                    timeout=urllib3.Timeout(total=left),
                )  # fmt: skip
            except urllib3.exceptions.NewConnectionError as error:
                reason = f"{self._url} can't be reached: {error}"
            except urllib3.exceptions.HTTPError as error:
                sure, reason = False, f"{self._url} did not answer: {error}"
            else:
                if answer.status == 202:  # noqa: PLR2004 - HTTP's own number
                    return
                reason, taken = _said(answer)
                sure = sure and not taken
                if answer.status not in _NOT_NOW:
                    raise EmitRefusedError(answer.status, reason)
            time.sleep(max(0.0, min(pause * random.uniform(0.5, 1), end - time.monotonic())))  # noqa: S311 - jitter
            pause = min(pause * 2, LONGEST_PAUSE)
        raise NotConfirmed(f"not confirmed within {self._timeout:g} s: {reason}", ids, sure=sure)

    def _connections(self) -> urllib3.PoolManager:
        """The pool of this process: a fork must not share sockets with its parent."""
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                self._pool, self._owner = urllib3.PoolManager(maxsize=16), os.getpid()
            return self._pool


def emit_url(url: str) -> str:
    """The address to post to, from the listener's.

    Raises:
        ConfigError: It is not a URL of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme in {"ws", "wss"}:
        raise ConfigError(
            f"{parts.scheme}://{parts.hostname} is where clients listen; to emit, give the HTTP listener's URL"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"{url!r} is not a URL; wanted is one such as {DEFAULT_URL}")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/emit') else path + '/emit'}"


def encode(payload: Mapping[str, Any]) -> bytes:
    """Write a payload as JSON.

    Raises:
        PeerError: It has a value that JSON can't have.
    """
    try:
        return msgspec.json.encode(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PeerError(f"payload can't be written as JSON: {error}") from error


def one_line(text: bytes) -> bytes:
    """JSON without line breaks: a JSON string has none, so they stand between values and say nothing."""
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


def _said(answer: urllib3.BaseHTTPResponse) -> tuple[str, bool]:
    """What an error answer says, and whether some of the events may have been taken."""
    try:
        value = json.loads(answer.data)
        return str(value["error"]), bool(value.get("taken", False))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {answer.status}", answer.status in {502, 504}
