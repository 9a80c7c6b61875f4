"""The sink `webhook`: events to an HTTP server, in batches, signed, tried again with growing pauses.

A batch is `{"events": [{"group", "type", "id", "time", "position", "payload"}, ...]}`, in the order of the log. It is
signed as Standard Webhooks has it (https://www.standardwebhooks.com), which has libraries for most languages: the
headers `webhook-id`, `webhook-timestamp` and `webhook-signature`. Any 2xx takes it. Until then it is posted again, the
next one waits, and past `retry_seconds` its events go to the dead queue.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import random
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from twisted.internet.task import deferLater
from zope.interface import implementer

from towerbus.auth.asking import Application, checked
from towerbus.auth.interface import NotNow
from towerbus.bridge.interface import IOutflow, ISink, Measure, Outgoing, Surroundings
from towerbus.doctor import findings
from towerbus.doctor.findings import Finding
from towerbus.errors import ConfigError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a batch is posted again, at first and at the most."""
UNACCEPTABLE = frozenset({400, 410, 413, 415, 422})
"""Answers that say of a batch that it will never be taken, as it is."""
SECRET = "whsec_"  # noqa: S105 - what a secret in base64 begins with
SHORTEST = 24
"""Bytes in a secret, at the least: what Standard Webhooks asks for."""
_MAX_SAID = 120
"""Characters of an answer's body that are shown, at the most."""
_OK = range(200, 300)
_MARKUP = re.compile(r"<[^<>]*>")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[bridge.sink]` of this kind.

    Attributes:
        url: Where batches are posted.
        secret: What signs them: `whsec_` and base64, or any text of 24 bytes or more. `env:NAME` keeps it out of the
            file.
        batch: Events in a batch, at the most.
        batch_bytes: Bytes of their payloads, at the most; one event alone may have more.
        timeout: Seconds for an answer.
        retry_seconds: Seconds for which a batch is tried again.
    """

    url: str
    secret: str
    batch: int = 100
    batch_bytes: int = 1024 * 1024
    timeout: float = 10.0
    retry_seconds: float = 3600.0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("batch", self.batch, 1, 10_000),
            ("batch_bytes", self.batch_bytes, 1, 64 * 1024 * 1024),
            ("timeout", self.timeout, 0.1, 600),
            ("retry_seconds", self.retry_seconds, 0, 30 * 86400),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name}: got {value:g}, wanted a number from {least:g} to {most:g}")
        key(self.secret)
        try:
            checked(self.url, "url")
        except ConfigError as error:
            raise ValueError(str(error)) from error


def key(secret: str) -> bytes:
    """The bytes of a secret.

    Raises:
        ValueError: It is not one.
    """
    found = secret.encode()
    if secret.startswith(SECRET):
        try:
            found = base64.b64decode(secret[len(SECRET) :], validate=True)
        except binascii.Error:
            raise ValueError(f"secret: what follows {SECRET} is not base64") from None
    if len(found) < SHORTEST:
        raise ValueError(f"secret: it has {len(found)} bytes, wanted are {SHORTEST} or more: openssl rand -base64 33")
    return found


def make(options: Options, surroundings: Surroundings) -> WebhookSink:
    """Make it.

    Raises:
        ConfigError: The URL is not right.
    """
    server = Application(options.url, surroundings.reactor, option="url", deadline=options.timeout, in_flight=1)
    return WebhookSink(options, surroundings, server)


@implementer(ISink)
class WebhookSink:
    """Posts batches, one after the other.

    Args:
        options: The configuration.
        surroundings: The bridge's.
        server: Where they go.
    """

    def __init__(self, options: Options, surroundings: Surroundings, server: Application) -> None:
        self._options = options
        self._around = surroundings
        self._server = server
        self._key = key(options.secret)
        self._waiting = self._retries = 0

    async def run(self, outflow: IOutflow) -> None:
        """Post until it is cancelled."""
        # Nobody can say whether the server answers before there is something for it.
        outflow.established()
        try:
            while True:
                batch = await outflow.take(self._options.batch, self._options.batch_bytes)
                self._waiting = len(batch)
                await self._deliver(batch, outflow)
                await outflow.confirmed(batch[-1].position)
                self._waiting = 0
        finally:
            self._waiting = 0
            await self._server.close()

    def measures(self) -> Sequence[Measure]:
        """What waits here."""
        return [
            Measure("waiting_events", "Events that wait for the foreign system", self._waiting),
            Measure("retries", "Batches that were posted again, since the start", self._retries),
        ]

    async def _deliver(self, batch: Sequence[Outgoing], outflow: IOutflow) -> None:
        """Post a batch until it is taken, or given up."""
        until = self._around.reactor.seconds() + self._options.retry_seconds
        pause = FIRST_PAUSE
        while True:
            reason, final = await self._post(batch)
            if not reason:
                outflow.trouble("")
                return
            if final and len(batch) > 1:
                # One of them may be at fault, or there are too many.
                for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    await self._deliver(part, outflow)
                return
            if final or self._around.reactor.seconds() >= until:
                await self._bury(batch, reason, outflow)
                # Who refuses one event answers, and may take the next. Who took nothing for so long has not yet.
                outflow.trouble("" if final else _given_up(len(batch), self._options.retry_seconds, reason))
                return
            outflow.trouble(reason)
            self._retries += 1
            await deferLater(self._around.reactor, pause * random.uniform(0.5, 1), lambda: None)  # noqa: S311 - jitter
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _post(self, batch: Sequence[Outgoing]) -> tuple[str, bool]:
        """Post a batch once.

        Returns:
            Why it was not taken, empty where it was, and whether it will never be.
        """
        body = written(batch)
        try:
            answer = await self._server.ask("POST", signed(self._key, batch, body, int(time.time())), body)
        except NotNow as error:
            return str(error), False
        if answer.status in _OK:
            return "", False
        return f"{self._server.shown} answered {told(answer.status, answer.body)}", answer.status in UNACCEPTABLE

    async def _bury(self, batch: Sequence[Outgoing], reason: str, outflow: IOutflow) -> None:
        for each in batch:
            await outflow.bury(each, reason)


def told(status: int, body: bytes) -> str:
    """An answer in one line for a person: the status, its name, and the beginning of what the body says as plain text.

    Args:
        status: The status.
        body: Whatever came with it: often a page of HTML, and it may hold anything.
    """
    phrase = next((each.phrase for each in HTTPStatus if each == status), "")
    # More than is shown, for what stands in a page's head is not.
    text = body[:4096].decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        head = text.lower().find("</head>")
        text = _MARKUP.sub(" ", text[max(head, 0) :])
    words = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    said = words if len(words) <= _MAX_SAID else f"{words[: _MAX_SAID - 3]}..."
    return f"{status} {phrase}".rstrip() + (f": {said}" if said and said != phrase else "")


def _given_up(count: int, seconds: float, reason: str) -> str:
    events = "1 event" if count == 1 else f"{count} events"
    return f"nothing is taken; after {seconds:.0f} s {events} went to the dead queue: {reason}"


def written(batch: Sequence[Outgoing]) -> bytes:
    """A batch as it is posted. The payloads' bytes stay as they are."""
    return msgspec.json.encode({"events": [_item(each) for each in batch]})


def signed(secret: bytes, batch: Sequence[Outgoing], body: bytes, now: int) -> dict[str, str]:
    """The headers that go with a batch.

    Args:
        secret: The key's bytes.
        batch: The batch: its id is the same when it is posted again.
        body: Its bytes.
        now: Seconds since the epoch of Unix.
    """
    names = "\n".join(each.event.id for each in batch).encode()
    id_ = f"msg_{hashlib.sha256(names).hexdigest()[:32]}"
    content = f"{id_}.{now}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, content, "sha256")).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{signature}",
    }


def _item(each: Outgoing) -> dict[str, Any]:
    event = each.event
    group, type_ = event.topic
    return {
        "group": group,
        "type": type_,
        "id": event.id,
        "time": event.time,
        "position": str(each.position),
        "payload": msgspec.Raw(event.payload),
    }


async def look(options: Options, surroundings: Surroundings) -> list[Finding]:
    """Look whether the server answers: a HEAD, whatever the status."""
    server = Application(options.url, surroundings.reactor, option="url", deadline=options.timeout, in_flight=1)
    try:
        answer = await server.ask("HEAD", {})
    except NotNow as error:
        return [findings.error("sink", str(error), "see that the server runs and can be reached from here")]
    finally:
        await server.close()
    return [findings.ok("sink", f"{server.shown} answers (HEAD: {answer.status})")]
