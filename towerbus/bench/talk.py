"""What the server's messages mean for a client of the bench, in either dialect. No I/O but through the client."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from towerbus.bench import replies
from towerbus.bench.client import Client, State, names
from towerbus.bench.content import Content, difference
from towerbus.bench.ledger import CHANGED, DROPPED, REFUSED, STRAY, TOLD, Faults
from towerbus.bench.loads import Role
from towerbus.bench.places import Places, behind, is_position, may_follow
from towerbus.bench.schedule import NEVER, Schedule
from towerbus.bench.seams import Seams
from towerbus.dialects import v1
from towerbus.errors import TowerbusError

SLOW_CODES = frozenset({1013, 4408})
"""How a server closes those that read too slowly."""
BEHIND = 0.2
"""Seconds for which a client must have lacked an event, at the least, that is closed for reading slowly."""
PUT_OUT = 4401
"""How the end of a connection counts whose client is told that it may not be there any more."""
_SHOWN = 160
_KEPT = 8192
"""Payloads that are kept: a slow reader's are made anew."""
_ODD = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Event(msgspec.Struct):
    """An event in `towerbus.v1`."""

    group: str
    type: str
    position: str
    id: str
    time: float
    data: msgspec.Raw


_event = msgspec.json.Decoder(Event)
_message = msgspec.json.Decoder(dict[str, Any])


class Talk:
    """Understands messages, and judges them.

    Args:
        schedule: Which events there are.
        content: What is in them.
        dialect: The subprotocol.
        faults: Where what is untrue is noted.
        sent: When an event was sent, by its number.
        clock: Now, as `sent` has it.
        token: Whether clients show a token.

    Attributes:
        on_event: Called with a client and the number of an event that it has got.
        on_greeted: Called with a client that the server has let in.
        on_reply: Called with a client that got what it asked for.
        on_caught_up: Called with a client that has caught up.
        on_put_out: Called with a client that was let in and may not stay, a close code and the reason.
        places: Where events stand (`towerbus.v1`).
        stale: How often the server said that events may not come through.
    """

    def __init__(
        self,
        schedule: Schedule,
        content: Content,
        dialect: str,
        faults: Faults,
        sent: Callable[[int], float],
        clock: Callable[[], float],
        *,
        token: bool = True,
    ) -> None:
        self._schedule = schedule
        self._content = content
        self._payload = lru_cache(_KEPT)(content.payload)
        self._faults = faults
        self._sent = sent
        self._clock = clock
        self._token = token
        self._v1 = dialect == v1.NAME
        self.places = Places()
        self.on_event: Callable[[Client, int], None] = _ignored
        self.on_greeted: Callable[[Client], None] = _ignored
        self.on_reply: Callable[[Client], None] = _ignored
        self.on_caught_up: Callable[[Client], None] = _ignored
        self.on_put_out: Callable[[Client, int, str], None] = _ignored
        self.stale = 0

    def take(self, client: Client, text: bytes) -> bool:
        """Take a text message.

        Returns:
            Whether it was an event.

        Raises:
            TowerbusError: The server does not let the client in, or refuses what every client of the load needs.
        """
        if self._v1 and text.startswith(b'{"group":'):
            self._take_v1(client, text)
            return True
        if not self._v1 and text.startswith(b'{"run":'):
            self._take_tower(client, text)
            return True
        self._take_word(client, text)
        return False

    def _take_tower(self, client: Client, payload: bytes) -> None:
        number = client.feed.following(client.next)
        if number == NEVER or payload != self._payload(number):
            found = self._checked(client, payload)
            if found is None:
                return
            number = found
        if client.take(number, self._sent):
            self.on_event(client, number)

    def _checked(self, client: Client, payload: bytes) -> int | None:
        """The number of an event that is not the one that was expected; None where it was changed."""
        number = self._content.number(payload)
        if number is None or number >= len(self._schedule.plan):
            if self._content.is_foreign(payload):
                self._faults.note(
                    STRAY, f"{client.name} got {payload[:_SHOWN]!r}, which nobody of this run has emitted"
                )
                return None
            number, wanted = None, client.feed.following(client.next)
            text = difference(payload, self._payload(wanted)) if wanted != NEVER else f"{payload[:_SHOWN]!r}"
        else:
            text = "" if payload == self._payload(number) else difference(payload, self._payload(number))
            if not text:
                return number
        client.changed(number, text)
        return None

    def _take_v1(self, client: Client, text: bytes) -> None:
        try:
            event = _event.decode(text)
        except _ODD as error:
            client.changed(None, f"not an event: {error}: {text[:_SHOWN]!r}")
            return
        number = self._checked(client, bytes(event.data))
        if number is None:
            return
        if wrong := self._misplaced(client, event, number):
            client.changed(number, wrong)
            return
        if client.take(number, self._sent):
            client.position = event.position
            self.on_event(client, number)

    def _misplaced(self, client: Client, event: Event, number: int) -> str:
        """What is wrong with an event's frame, in words."""
        topic = self._schedule.topics[self._schedule.plan[number]]
        if (event.group, event.type) != topic:
            return f"it says that it is of {event.group}-{event.type}, and was emitted to {topic.name}"
        if event.id != self._content.id(number):
            return f"its id is {event.id!r}, and it was emitted with {self._content.id(number)!r}"
        if wrong := self.places.differs(number, event.position, event.time):
            return wrong
        unproven, client.unproven = client.unproven, False
        if client.position is not None and number >= client.next and not behind(event.position, client.position):
            told = "with no event" if unproven else "before"
            return f"its position {event.position} is not behind {client.position}, which it was told {told}"
        return ""

    def _take_word(self, client: Client, text: bytes) -> None:
        """Take what is no event."""
        try:
            message = _message.decode(text)
        except _ODD:
            self._faults.note(STRAY, f"{client.name} got {text[:_SHOWN]!r}, which is nothing that a server says")
            return
        match message:
            case {"accept": True} if client.state is State.GREETING:
                client.state = State.OPEN
                self.on_greeted(client)
            case {"close": True} | {"code": "not_authenticated"}:
                self._put_out(client, text)
            case {"groups_current": list(current)}:
                self._take_reply(client, message, frozenset(map(str, current)))
            case {"error": str(error)}:
                self._faults.note(REFUSED, f"{client.name}: {error[:_SHOWN]}")
            case _:
                self._take_notice(client, message, text)

    def _put_out(self, client: Client, text: bytes) -> None:
        if client.was_in:
            self.on_put_out(client, PUT_OUT, f"the server said {text[:_SHOWN]!r}: has the token expired?")
            return
        why = "is the token right, and has it not expired?" if self._token else "give a --token: there is none"
        raise TowerbusError(f"the server does not let the clients in: {why}")

    def _take_reply(self, client: Client, message: dict[str, Any], current: frozenset[str]) -> None:
        feed, client.awaited = client.awaited, None
        if feed is None:
            self._faults.note(STRAY, f"{client.name} got a reply to nothing: {message}")
            return
        wanted = names(self._schedule, feed.topics)
        if (denied := wanted - current) and not client.has_subscribed:
            raise TowerbusError(
                f"the server denies {', '.join(sorted(denied)[:3])}: the token needs the grant to subscribe to what "
                "the bench emits (towerbus token --subscribe '*' --emit '*')"
            )
        position = replies.position(message) if self._v1 else None
        places = replies.wrong_places(message, client.position, since=client.since != 0) if self._v1 else ()
        for wrong in (*replies.wrong_lists(message, client.current, wanted), *places):
            self._faults.note(CHANGED, f"{client.name}: {wrong}")
        if message.get("recovered") is False:
            self._faults.note(TOLD, f"{client.name} came back and was told: {message.get('lost')}")
            client.resume(self._clock())
        elif client.since == 0:
            if client.walking and client.settled and position is not None and client.seams is None:
                client.seams = Seams(self.places, client.feed, client.next)
            client.replace(feed, self._clock(), position)
        if position is not None:
            client.told(position)
        client.current, client.has_subscribed = current, True
        self.on_reply(client)

    def _take_notice(self, client: Client, message: dict[str, Any], text: bytes) -> None:
        match message:
            case {"position": str(position), **more} if self._v1 and not more and is_position(position):
                if client.position is not None and not may_follow(position, client.position):
                    self._faults.note(
                        CHANGED, f"{client.name} was told position {position}, which is before {client.position}"
                    )
                client.told(position)
                self.on_caught_up(client)
            case {"stale": _, **more} if self._v1 and not more:
                self.stale += 1
            case {"gap": gap, **more} if self._v1 and not more:
                self._faults.note(TOLD, f"{client.name}: {gap}")
                client.resume(self._clock())
            case {"reconnect": _, **more} if self._v1 and not more:
                pass
            case _:
                self._faults.note(STRAY, f"{client.name} got {text[:_SHOWN]!r}, which nobody of this run has emitted")

    def ended(self, client: Client, code: int | None, reason: str) -> bool:
        """A connection has ended.

        Args:
            client: Whose.
            code: The close frame's; None without one.
            reason: In words.

        Returns:
            Whether the client is to come back.
        """
        # Where nothing more goes to one that reads slowly, neither does a close frame: its connection may just end.
        if client.role is Role.SLOW and (code is None or code in SLOW_CODES) and self._is_behind(client):
            if self._v1:
                return True
        else:
            self._faults.note(DROPPED, f"{client.name}: {reason}")
        client.excused = True
        client.excuse()
        return False

    def _is_behind(self, client: Client) -> bool:
        since = client.owes_since(self._sent)
        return since > 0 and self._clock() - since >= BEHIND


def _ignored(*_: object) -> None:
    pass
