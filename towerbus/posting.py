"""What the emitters have in common: what becomes an event and, over HTTP, where it goes and what answers mean. Pure."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import msgspec

from towerbus import topics
from towerbus.errors import ConfigError, NotConfirmed, PeerError
from towerbus.event import Event, EventError, check_payload, checked_id, new_id
from towerbus.urls import ESCAPES, shown

URL = "TOWERBUS_URL"
TOKEN = "TOWERBUS_TOKEN"  # noqa: S105 - the variable's name
DEFAULT_URL = "http://127.0.0.1:8052"
NEEDLESS = "no token is needed over AMQP: the broker's user and password, in the URL, decide; the one given is not used"
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

_ACCEPTED = 202
_TRY_AGAIN = frozenset({408, 429})
_SERVER_ERROR = 500
_UNAVAILABLE = 503


class EmitRefusedError(PeerError):
    """The server refused the events for good, and took none: the token, the address or the payload is not right.

    Args:
        status: The HTTP status.
        text: What the server said.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Target(NamedTuple):
    """Where events are posted, and the headers that go with them."""

    url: str
    headers: dict[str, str]


def address(url: str | None = None) -> str:
    """The URL that counts: the one given, that of the environment, or the default."""
    return url or os.environ.get(URL) or DEFAULT_URL


def is_amqp(url: str) -> bool:
    """Whether a URL is a broker's, and not an HTTP listener's."""
    return url.partition(":")[0].lower() in {"amqp", "amqps"}


def target(url: str | None = None, token: str | None = None) -> Target:
    """Find out where to post.

    Args:
        url: The HTTP listener; `TOWERBUS_URL` where it is not given. It may hold the token, as `?token=`.
        token: A token with grants to emit. Without one it is the URL's, and then `TOWERBUS_TOKEN`.

    Raises:
        ConfigError: The URL is not one of HTTP, or the token can't stand in a header.
    """
    given = address(url)
    listener = emit_url(given)
    secret = token or parse_qs(urlsplit(given).query).get("token", [""])[0] or os.environ.get(TOKEN) or ""
    if not all("!" <= character <= "~" for character in secret):
        raise ConfigError("the token has blanks, line breaks or characters outside ASCII: it was not copied whole")
    headers = {"Content-Type": "application/json"}
    return Target(listener, headers | ({"Authorization": f"Bearer {secret}"} if secret else {}))


def emit_url(url: str) -> str:
    """The address to post to, from the listener's.

    Raises:
        ConfigError: It is not a URL of HTTP.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is checked when it is asked for
    except ValueError:
        # Python's words may hold a part of a password.
        raise ConfigError(
            f"not a URL: its host or its port is not right ({ESCAPES}); wanted is one such as {DEFAULT_URL}"
        ) from None
    if parts.scheme in {"ws", "wss"}:
        raise ConfigError(
            f"{parts.scheme}://{parts.hostname} is where clients listen; to emit, give the HTTP listener's URL, "
            f"such as {DEFAULT_URL}"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isascii() or not url.isprintable():
        raise ConfigError(
            f"{shown(url)} is not a URL; wanted is one such as {DEFAULT_URL}, or amqp://USER:PASSWORD@HOST"
        )
    if parts.fragment:
        # Nothing of it is quoted: it may be a part of the password.
        raise ConfigError(f"there is a # in the URL ({ESCAPES}); wanted is one such as {DEFAULT_URL}")
    path = parts.path.rstrip("/")
    # Errors quote it. A user and a password are not for HTTP, where the token decides.
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path if path.endswith('/emit') else path + '/emit'}"


def events(given: Iterable[Mapping[str, Any]], limit: int = sys.maxsize) -> list[Event]:
    """Make events of what a caller gave. The bytes of a payload stay as they are.

    Args:
        given: Each with `group`, `type`, `payload` and, where the caller has one, `id`.
        limit: Bytes in a payload, at the most; over HTTP that is the server's business.

    Raises:
        PeerError: One of them can't be an event; among several, the text names it by its place, from 0.
    """
    items = list(given)
    made = []
    for number, item in enumerate(items):
        try:
            made.append(_event(item, limit))
        except PeerError as error:
            if len(items) == 1:
                raise
            raise EventError(f"item {number}: {error}") from error
    return made


def body(made: Iterable[Event]) -> bytes:
    """Write events as the body of one request."""
    return b"[" + b",".join(map(_item, made)) + b"]"


def _event(given: Mapping[str, Any], limit: int) -> Event:
    missing = [key for key in ("group", "type", "payload") if key not in given]
    if missing:
        raise EventError(f"no {missing[0]}")
    group, payload, id_ = given["group"], given["payload"], given.get("id")
    if not isinstance(group, str):
        raise EventError(f"group {group!r:.40} is not a text")
    topic = topics.emittable(group, given["type"])
    text = payload if isinstance(payload, bytes) else encode(payload)
    # Also where we have written it: it may be empty or too long, and what is no JSON could pass for other keys.
    check_payload(text, limit)
    return Event(topic, text, new_id() if id_ is None else checked_id(str(id_)), time.time())


def _item(made: Event) -> bytes:
    group, type_ = made.topic
    return msgspec.json.encode({"group": group, "type": type_, "id": made.id, "payload": msgspec.Raw(made.payload)})


def encode(payload: Mapping[str, Any]) -> bytes:
    """Write a payload as JSON. Dates, UUIDs, decimals and Django's lazy texts become text.

    Raises:
        PeerError: It has a value that JSON can't have.
    """
    try:
        return msgspec.json.encode(payload, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EventError(f"payload can't be written as JSON: {error}") from error


def _plain(value: object) -> object:
    """What msgspec does not write by itself: subclasses of str, mappings, and texts that Django translates late."""
    if isinstance(value, Mapping):
        return dict(value)
    lazy = any((kind.__module__, kind.__name__) == ("django.utils.functional", "Promise") for kind in type(value).mro())
    if lazy or isinstance(value, str):
        return "".join(str(value))
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


class Attempts:
    """What is known of events that are being emitted, over all the times that it was tried.

    Args:
        ids: Their ids.
        timeout: Seconds for all of it; for the text of the error.
    """

    def __init__(self, ids: tuple[str, ...], timeout: float) -> None:
        self._ids = ids
        self._timeout = timeout
        self._sure = True
        self._reason = "there was no time to try"
        self._said = ""
        self._pause = FIRST_PAUSE

    def failed(self, reason: str, *, sure: bool) -> None:
        """There was no answer, or none that says why.

        Args:
            reason: What is known.
            sure: True when nothing can have been sent.
        """
        self._reason = reason
        self._sure = self._sure and sure

    def confirmed(self, status: int, answer: bytes) -> bool:
        """Judge an answer: True when the events are confirmed, False when trying again is right.

        Raises:
            EmitRefusedError: They are refused for good.
            NotConfirmed: They are refused, but an earlier try, which had no answer, may have been taken.
        """
        if status == _ACCEPTED:
            return True
        reason, taken = _said(status, answer)
        if status >= _SERVER_ERROR or status in _TRY_AGAIN:
            self.failed(reason, sure=not taken)
            self._said = reason
            return False
        if self._sure:
            raise EmitRefusedError(status, reason)
        raise NotConfirmed(f"an earlier try had no answer and may have been taken; now: {reason}", self._ids)

    def pause(self, left: float) -> float:
        """Seconds to wait before the next try, of those that are left; longer each time, and never quite the same."""
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        return max(0.0, min(pause * random.uniform(0.5, 1), left))  # noqa: S311 - jitter

    def given_up(self) -> NotConfirmed:
        """The error for when the time is over."""
        # What a server said tells more than that the last try, for which there was hardly time, had no answer.
        known = self._said if self._said in {"", self._reason} else f"{self._said} (then: {self._reason})"
        reason = f"not confirmed within {self._timeout:g} s: {known or self._reason}"
        return NotConfirmed(reason, self._ids, sure=self._sure)


def _said(status: int, answer: bytes) -> tuple[str, bool]:
    """What an error answer says, and whether some of the events may have been taken."""
    doubt = status >= _SERVER_ERROR and status != _UNAVAILABLE
    try:
        value = json.loads(answer)
        return str(value["error"]), bool(value.get("taken", doubt))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"HTTP {status}, and no word of why: is this towerbus's HTTP listener?", doubt
