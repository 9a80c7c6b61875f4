"""The broker's management API, as far as the doctor reads it. Without it some things can't be looked at."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import urllib3

from towerbus.amqp.url import Broker
from towerbus.doctor import findings
from towerbus.doctor.findings import DOCTOR, Finding
from towerbus.errors import ConfigError
from towerbus.urls import ESCAPES

PORT = 15672
SECONDS = 5.0
_OK, _DENIED, _NOT_FOUND = 200, frozenset({401, 403}), 404
_LOGIN_FAILED = "login failed"
"""RabbitMQ answers 401 to a wrong password and to a user without the tag alike; only its reason tells them apart."""
_ENABLE = "enable rabbitmq_management on the broker, or give --management URL where it listens elsewhere"


class NotTold(Exception):
    """The API did not answer, or not this; the text says why.

    Attributes:
        mend: What to do.
        missing: Whether the API says that there is no such thing.
    """

    def __init__(self, text: str, mend: str, *, missing: bool = False) -> None:
        super().__init__(text)
        self.mend = mend
        self.missing = missing


class Management:
    """Reads the API.

    Args:
        broker: Whose.
        url: Where, with a login of its own if it is another; the broker's host and port 15672 if empty.

    Raises:
        ConfigError: The URL is not one.
    """

    def __init__(self, broker: Broker, url: str = "") -> None:
        host = f"[{broker.host}]" if ":" in broker.host else broker.host
        wanted = f"--management: wanted is http://HOST:{PORT} or https://... ({ESCAPES})"
        try:
            parts = urlsplit(url or f"http://{host}:{PORT}")
            parts.port  # noqa: B018 - it is checked when it is asked for
        except ValueError:
            # Python's words may hold a part of a password.
            raise ConfigError(wanted) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(wanted)
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        user, password = (unquote(each) if each else "" for each in (parts.username, parts.password))
        login = f"{user}:{password}" if user else f"{broker.user}:{broker.password}"
        self._user = user or broker.user
        self._vhost = quote(broker.vhost, safe="")
        self._headers = urllib3.make_headers(basic_auth=login)
        self._pool = urllib3.PoolManager(retries=False, timeout=SECONDS)

    def get(self, path: str) -> tuple[Any, float | None]:
        """Read one resource: its value, and the broker's time (seconds since the epoch of Unix) as the answer tells it.

        Raises:
            NotTold: There is no answer.
        """
        try:
            answer = self._pool.request("GET", f"{self.url}/api/{path}", headers=self._headers)
            if answer.status != _OK:
                raise self._refusal(answer.status, answer.data)
            date = answer.headers.get("date")
            return answer.json(), parsedate_to_datetime(date).timestamp() if date else None
        except urllib3.exceptions.HTTPError as error:
            raise NotTold(f"{self.url} does not answer: {type(error).__name__}", _ENABLE) from error
        except ValueError as error:
            raise NotTold(f"{self.url} is not RabbitMQ's management API: its answer is not JSON", _ENABLE) from error

    def _refusal(self, status: int, body: bytes) -> NotTold:
        if status not in _DENIED:
            text = f"{self.url}: HTTP {status}"
            return NotTold(text, "look at the broker's own log", missing=status == _NOT_FOUND)
        if _LOGIN_FAILED in body.decode("utf-8", "replace").lower():
            text = f"{self.url}: the login of user {self._user!r} is refused"
            return NotTold(text, "see its name and password, or give --management http://USER:PASSWORD@HOST:PORT")
        text = f"{self.url}: user {self._user!r} lacks the tag monitoring"
        return NotTold(
            text, f"rabbitmqctl set_user_tags {self._user} monitoring, or give --management with another user"
        )

    def look(self, queues: Sequence[str], intake: str) -> list[Finding]:
        """Look at the nodes, their alarms and clock, the queues' copies, the workers, and who is blocked.

        Args:
            queues: Their names; one that is missing is passed over, for whoever looks at the objects says so.
            intake: Which of them the workers read.
        """
        try:
            nodes, at = self.get("nodes")
            found = [finding for node in nodes for finding in findings.node(node)]
            if not found:
                names = ", ".join(str(node.get("name")) for node in nodes)
                found.append(findings.ok("nodes", f"{names}: running, no alarm"))
            if at is not None:
                found.append(findings.clock(at, time.time(), "the broker's"))
            found += self._queues(queues, intake, len(nodes))
            found += self._blocked()
        except NotTold as error:
            text = f"nodes, copies, standby workers, alarms and clock not looked at: {error}"
            return [findings.note("management", text, error.mend)]
        return found

    def _queues(self, names: Sequence[str], intake: str, nodes: int) -> list[Finding]:
        copies: list[Finding] = []
        workers: list[Finding] = []
        whole = 0
        for name in names:
            try:
                told, _ = self.get(f"queues/{self._vhost}/{quote(name, safe='')}")
            except NotTold as error:
                if not error.missing:
                    copies.append(findings.note("replicas", f"{name}: {error}", error.mend))
                continue
            found = list(findings.queue(told, nodes))
            copies += found
            whole += not found
            if name == intake:
                workers += findings.workers(told)
        if whole and not copies:
            copies.append(findings.ok("replicas", "every queue has all its copies"))
        return copies + workers

    def _blocked(self) -> list[Finding]:
        connections, _ = self.get(f"vhosts/{self._vhost}/connections")
        names = [str(each.get("user_provided_name") or each.get("name")) for each in connections if _is_blocked(each)]
        blocked = [name for name in names if name != DOCTOR]
        if blocked:
            text = f"{len(blocked)} connections are blocked: {', '.join(blocked[:5])}"
            return [findings.error("blocked", text, "mend the broker's alarm (memory, disk)")]
        return [findings.ok("blocked", "no connection is blocked")]


def _is_blocked(told: Mapping[str, Any]) -> bool:
    return told.get("state") in {"blocked", "blocking"}
