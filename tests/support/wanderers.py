"""Clients that drop and come back, replace their sets and stall while events flow, and the truth beside them."""

from __future__ import annotations

import json
import random
import socket
import time
from collections import defaultdict

from support.v1 import V1Client
from support.wires import until
from twisted.internet import reactor, task

from towerbus import positions
from towerbus.event import event


async def turns(count=3):
    for _ in range(count):
        await task.deferLater(reactor, 0, lambda: None)


class Truth:
    """What everybody ought to have got: every event with its place, and when each client joined and left each topic."""

    def __init__(self, server):
        self.server, self.number = server, 0
        self.events = []
        self.order = {}
        server.log.follow(self)

    def received(self, record):
        for index, made in enumerate(record.events):
            position = str(record.position(index))
            self.order[position] = record.position(index)
            self.events.append((made.topic.name, json.loads(made.payload)["n"], record.position(index)))

    def lost(self, lost):
        raise AssertionError(lost)

    async def emit(self, topics, size):
        numbers = range(self.number, self.number + len(topics))
        self.number += len(topics)
        await self.server.log.emit(
            [event(*topic, b'{"n":%d,"x":"%s"}' % (n, b"x" * size)) for n, topic in zip(numbers, topics, strict=True)]
        )

    def expected(self, name, spans):
        return [n for topic, n, place in self.events if topic == name and any(a < place <= b for a, b in spans)]


class Wanderer(V1Client):
    """A client that keeps the spans in which it was entitled to each topic, as the replies have told them."""

    def __init__(self, server, groups):
        super().__init__(server, groups)
        self.open, self.spans = {}, defaultdict(list)

    def _reply(self, message):
        super()._reply(message)
        place = positions.parse(message["position"])
        for name in message["groups_joined"]:
            self.open.setdefault(name, place)
        for name in message["groups_left"]:
            self.spans[name].append((self.open.pop(name), place))

    async def connect(self, **more):
        await super().connect(**more)
        self.wire.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        return self

    async def come_back(self):
        """Come back for what it has: a wish that was not answered is as if it had not been."""
        self.take()
        self.groups = {"jobs": [name.removeprefix("jobs-") for name in self.open]}
        await self.connect()

    def read_on(self):
        if not self.lost and not self.wire.transport.disconnecting:
            self.wire.transport.resumeProducing()

    def check(self, truth, end):
        self.take()
        for name, begin in self.open.items():
            self.spans[name].append((begin, end))
        got = defaultdict(list)
        for name, number, _ in self.events:
            got[name].append(number)
        for name in {*got, *self.spans}:
            assert got[name] == truth.expected(name, self.spans[name]), name


NAMES = [("jobs", str(number)) for number in range(6)]


class Dice(random.Random):
    """What the clients do next."""

    def some(self):
        return [type_ for _, type_ in NAMES if self.random() < 0.5]

    async def move(self, clients):
        client, what = self.choice(clients), self.random()
        client.take()
        if client.lost or what < 0.15:
            await self.come_back(client)
        elif what < 0.25 and not client.wished:
            client.wish({"jobs": self.some()})
        elif what < 0.35 and not client.wished and not client.catching_up:
            # Topics that join from an older place than those that are kept: the hard case.
            client.wish({"jobs": sorted({*client.groups["jobs"], *self.some()})}, since=client.position)
        elif what < 0.5:
            client.wire.transport.pauseProducing()
        elif what < 0.6:
            for other in clients:
                other.read_on()

    async def come_back(self, client):
        if client.position is not None:
            client.drop()
            await turns(self.randint(0, 3))
            await client.come_back()


async def wander(server, seed, count, seconds):
    """Clients drop and come back, replace their sets and stall, while events flow.

    For some seconds, and until so many came back and got what they had missed: a busy machine needs longer for that.
    """
    print(f"seed {seed}")
    # What the kernel holds for a connection is small, so that stalls are felt.
    server.port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
    dice, truth = Dice(seed), Truth(server)
    clients = [Wanderer(server, {"jobs": dice.some()}) for _ in range(count)]
    for client in clients:
        await client.connect()
    end = time.monotonic() + seconds
    while time.monotonic() < end or server.catchup.counts.recovered <= count:
        await truth.emit([dice.choice(NAMES) for _ in range(dice.randint(1, 6))], dice.choice([0, 300, 8000]))
        await dice.move(clients)
        if dice.random() < 0.3:
            await turns(1)
    await settle(server, truth, clients)
    print(truth.number, "events", server.catchup.counts.__dict__, server.factory.counts.slow_consumers, "slow")


async def settle(server, truth, clients):
    """Let everybody read to the end, and look at what they have got."""
    for client in clients:
        client.read_on()
    for client in clients:
        await live_again(client)
    await truth.emit(NAMES, 0)
    for client in clients:
        while not has_all(client, truth):
            # One that was closed as slow learns of it whenever it has read so far: also now.
            await until(lambda client=client: client.take() or client.lost or has_all(client, truth))
            await live_again(client)
    for client in clients:
        client.check(truth, server.log.tail.end)


async def live_again(client):
    """Wait until a client has its answers and has caught up, over as many connections as it takes."""
    while client.lost or client.wished or client.catching_up:
        await until(lambda: client.take() or client.lost or not (client.wished or client.catching_up))
        if client.lost:
            await client.come_back()


def has_all(client, truth):
    return all(number >= truth.number - len(NAMES) for number in last(client))


def last(client):
    """The last number that a client has got of each topic that it hears."""
    got = {name: number for name, number, _ in client.events}
    return [got.get(name, -1) for name in client.open]
