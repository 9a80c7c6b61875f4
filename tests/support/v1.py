"""A client of the dialect `towerbus.v1`, written from docs/protocol.md: keeps its position, and comes back with it."""

from __future__ import annotations

import json

from support.wires import until

V1 = ["Sec-WebSocket-Protocol: towerbus.v1"]


class V1Client:
    """One client over all of its connections.

    Attributes:
        position: What it would come back with.
        groups: What it wants.
        events: What it has got, in order: (name of the topic, payload's number, position).
        notices: Everything that is neither event nor reply.
        replies: The replies.
        repeats: Events that came again, which only those may that were got while it caught up.
    """

    def __init__(self, server, groups):
        self.server, self.groups = server, groups
        self.position, self.events, self.notices, self.replies, self.repeats = None, [], [], [], []
        self.wire, self.read = None, 0
        self.wished = []
        self.catching_up, self.moving, self.ahead = False, frozenset(), set()

    async def connect(self, **more):
        """Connect, and subscribe; where it left, if it was there before."""
        self.wire, self.read = await self.server.client(headers=V1), 0
        self.catching_up = False
        self.wished = []
        if self.position is not None:
            more["since"] = self.position
        self.wish(self.groups, **more)
        return self

    def wish(self, groups, **more):
        self.groups = groups
        self.wished.append(more)
        self.wire.say({"groups": groups, **more})

    def drop(self):
        self.take()
        self.wire.transport.abortConnection()

    @property
    def lost(self):
        return self.wire.lost

    def take(self):
        """Take what has come."""
        messages = self.wire.messages[self.read :]
        self.read += len(messages)
        for message in map(json.loads, messages):
            if "data" in message:
                self._event(message)
            elif "groups_current" in message:
                self._reply(message)
            elif "accept" not in message:
                self.notices.append(message)
                if "position" in message:
                    self.position, self.catching_up = message["position"], False

    def _event(self, message):
        name = f"{message['group']}-{message['type']}"
        moves = not self.catching_up or name in self.moving or f"{message['group']}-*" in self.moving
        if message["id"] in self.ahead:
            self.repeats.append(message)
            return
        self.events.append((name, message["data"]["n"], message["position"]))
        if moves:
            self.position = message["position"]
        if not moves or any("since" in wish for wish in self.wished):
            # It stands behind the position that the client may have to come back with.
            self.ahead.add(message["id"])

    def _reply(self, message):
        wish = self.wished.pop(0)
        self.replies.append(message)
        self.position = message["position"]
        self.catching_up = "since" in wish or "last" in wish
        self.moving = frozenset(message["groups_joined"]) if "since" in wish else frozenset()

    def numbers(self, name=None):
        self.take()
        return [number for topic, number, _ in self.events if name in {None, topic}]

    async def replied(self, count=1):
        await until(lambda: self.take() or len(self.replies) >= count or self.lost)
        return self.replies[-1]

    async def told(self, key):
        await until(lambda: self.take() or any(key in notice for notice in self.notices))
        return next(notice[key] for notice in reversed(self.notices) if key in notice)

    async def live(self, count=1):
        """Wait until it has caught up."""
        await self.replied(count)
        await until(lambda: self.take() or not self.catching_up)
        return self
