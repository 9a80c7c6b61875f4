"""The application, asked about single topics: `who = "ask"`.

It is sent a POST for each group, `{"user": 7, "group": "job_events", "types": ["42", "43"]}`, and answers 200 with
`{"allowed": ["42"]}`. Without an answer nothing is allowed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from zope.interface import implementer

from towerbus.access import Identity
from towerbus.auth.asking import DEADLINE, IN_FLIGHT, Application
from towerbus.auth.interface import IAccessOracle, NotNow
from towerbus.auth.recent import Recent, Shared
from towerbus.topics import Topic

_log = Logger()

KEEP_YES = 5.0
"""Seconds that a yes is remembered."""
KEEP_NO = 1.0
"""Seconds that a no is remembered: less, as a client may ask for the events of a job that is being made."""
REMEMBERED = 100_000
"""Answers that are remembered, at the most."""
OK = 200

_Question = tuple[int | str, str, tuple[str, ...]]


class _Allowed(msgspec.Struct, frozen=True):
    """The application's answer."""

    allowed: tuple[int | str, ...]


@implementer(IAccessOracle)
class AccessOracle:
    """Asks the application who may see what, and remembers the answers for a moment.

    Args:
        url: Where to ask.
        reactor: Connects.
        deadline: Seconds that the application gets.
        keep_yes: Seconds that a yes is remembered.
        keep_no: Seconds that a no is remembered.
        in_flight: Requests at once, at the most.
        clock: Keeps the deadline and the memory; the reactor where it is None.

    Raises:
        ConfigError: The URL can't be asked.
    """

    def __init__(
        self,
        url: str,
        reactor: Any,
        *,
        deadline: float = DEADLINE,
        keep_yes: float = KEEP_YES,
        keep_no: float = KEEP_NO,
        in_flight: int = IN_FLIGHT,
        clock: Any = None,
    ) -> None:
        self._clock = reactor if clock is None else clock
        self._application = Application(
            url, reactor, option="--ask-url", deadline=deadline, in_flight=in_flight, clock=self._clock
        )
        self._keep_yes = keep_yes
        self._keep_no = keep_no
        self._known: Recent[tuple[int | str, Topic], bool] = Recent(REMEMBERED, self._clock.seconds)
        self._asking: Shared[_Question, frozenset[Topic]] = Shared()

    def allowed(self, identity: Identity, topics: frozenset[Topic]) -> Deferred[frozenset[Topic]]:
        """Ask which of the topics the identity may see; none, where there is no answer in time."""
        yes: set[Topic] = set()
        open_: dict[str, list[str]] = defaultdict(list)
        for topic in topics:
            known = self._known.get((identity.user, topic))
            if known:
                yes.add(topic)
            elif known is None:
                open_[topic.group].append(topic.type)
        if not open_:
            return succeed(frozenset(yes))
        asked = [self._ask_shared(identity.user, group, sorted(types)) for group, types in sorted(open_.items())]
        return gatherResults(asked).addCallback(lambda answers: frozenset(yes).union(*answers))

    async def close(self) -> None:
        """End what is in flight, and close the connections to the application."""
        await self._application.close()

    def _ask_shared(self, user: int | str, group: str, types: Sequence[str]) -> Deferred[frozenset[Topic]]:
        question = (user, group, tuple(types))
        return self._asking.ask(question, lambda: Deferred.fromCoroutine(self._ask(*question)))

    async def _ask(self, user: int | str, group: str, types: tuple[str, ...]) -> frozenset[Topic]:
        body = msgspec.json.encode({"user": user, "group": group, "types": types})
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            answer = await self._application.ask("POST", headers, body)
            if answer.status != OK:
                raise NotNow(f"{self._application.shown} answered {answer.status}; wanted 200")
            said = {str(type_) for type_ in msgspec.json.decode(answer.body, type=_Allowed).allowed}
        except (NotNow, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _log.warn("access_not_answered: {reason}", reason=str(error), group=group)
            return frozenset()
        self._remember(user, group, types, said)
        return frozenset(Topic(group, type_) for type_ in types if type_ in said)

    def _remember(self, user: int | str, group: str, types: tuple[str, ...], said: set[str]) -> None:
        now = self._clock.seconds()
        for type_ in types:
            yes = type_ in said
            self._known.put((user, Topic(group, type_)), yes, now + (self._keep_yes if yes else self._keep_no))
