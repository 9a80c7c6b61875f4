"""A real server and raw clients in one reactor: every byte of every stream can be looked at, and reading can be paused."""

from __future__ import annotations

import base64
import json
import os
import struct
import time
import zlib

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from towerbus.access import AccessRules, Grants, Identity
from towerbus.auth.interface import IAuthenticator
from towerbus.catchup.room import CatchUp
from towerbus.event import event
from towerbus.hub import catchup_limits, dialects
from towerbus.log.memory import MemoryLog
from towerbus.wire.deadlines import Deadlines
from towerbus.wire.factory import EventsFactory, WireOptions
from towerbus.wire.fanout import FanOut
from towerbus.wire.outlet import broadcast

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
EVERYTHING = Grants(("*",), ("*",))


@implementer(IAuthenticator)
class Table:
    """An authenticator that knows some secrets; what stands for one may be an identity, an error or a Deferred."""

    def __init__(self, known=None):
        self.known = {"good": Identity(7, "ada", EVERYTHING)} if known is None else known

    def authenticate(self, credential):
        answer = self.known.get(credential.secret)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Server:
    """The wire, the fan-out and a memory log on a real port."""

    def __init__(
        self,
        *,
        authenticator=None,
        rules=None,
        oracle=None,
        clock=reactor,
        seconds=time.monotonic,
        now=time.time,
        log=None,
        limits=None,
        deflater=None,
        **options,
    ):
        rules = rules or AccessRules(ask=oracle is not None)
        self.deflater = deflater
        spoken = dialects(rules, deflater)
        self.log = log or MemoryLog(time.monotonic)
        self.fanout = FanOut(
            [lane for each in spoken.values() for lane in each.lanes],
            reactor.callLater,
            broadcast,
            lambda: self.log.tail.end,
        )
        options = WireOptions(**options)
        self.catchup = CatchUp(
            self.log,
            self.fanout.flush,
            rules.opens,
            reactor.callLater,
            time.monotonic,
            limits or catchup_limits(options.outbox),
        )
        self.deadlines, self.expiries = Deadlines(clock, seconds), Deadlines(clock, seconds)
        self.factory = EventsFactory(
            options=options, spoken=spoken, authenticator=authenticator or Table(), rules=rules,
            oracle=oracle, fanout=self.fanout, catchup=self.catchup, deadlines=self.deadlines, expiries=self.expiries, now=now, reactor=reactor,
        )  # fmt: skip
        self.fanout.on_lost = self.factory.lost
        self.log.follow(self.fanout)
        self.lane, self.v1_lane = spoken["tower"].lane, spoken["towerbus.v1"].lane
        self.clients = []
        self.wrap = lambda endpoint: endpoint

    async def start(self, endpoint=None):
        endpoint = endpoint or TCP4ServerEndpoint(reactor, 0, backlog=4096, interface="127.0.0.1")
        self.port = await endpoint.listen(self.factory)
        self.deadlines.startService()
        self.expiries.startService()
        return self

    async def stop(self):
        self.deadlines.stopService()
        self.expiries.stopService()
        self.catchup.close()
        await self.port.stopListening()
        for client in self.clients:
            if not client.lost:
                client.transport.abortConnection()
        await until(lambda: not self.factory.wires and not self.fanout._scheduled and all(c.lost for c in self.clients))

    def emit(self, payload, topic=("jobs", "status_changed")):
        return self.log.emit([event(*topic, payload)])

    async def client(self, path="/websocket/?token=good", headers=(), *, handshake=True):
        client = RawClient()
        await connectProtocol(self.wrap(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)), client)
        self.clients.append(client)
        if handshake:
            client.shake_hands(path, headers)
            await client.shaken
        return client

    async def subscribed(self, groups=None, **given):
        client = await self.client(**given)
        client.say({"groups": {"jobs": ["status_changed"]} if groups is None else groups})
        await client.until(2)
        del client.messages[:2]
        return client


class RawClient(Protocol):
    """A client that keeps every message it gets."""

    def __init__(self):
        self.data, self.head, self.messages = b"", None, []
        self.shaken, self.lost, self.close_code, self.pings = Deferred(), False, None, 0
        self.answers_close = self.answers_pings = True
        self.compressed = 0

    def shake_hands(self, path, headers=()):
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}",
                 "Sec-WebSocket-Version: 13", *headers]  # fmt: skip
        self.transport.write("\r\n".join([*lines, "", ""]).encode())

    def say(self, value):
        self.frame(1, value if isinstance(value, bytes) else json.dumps(value).encode())

    def frame(self, opcode, payload, *, fin=True, mask=True, rsv=0):
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        bit = 0x80 if mask else 0
        if len(payload) < 126:
            head += bytes([bit | len(payload)])
        elif len(payload) < 65536:
            head += struct.pack("!BH", bit | 126, len(payload))
        else:
            head += struct.pack("!BQ", bit | 127, len(payload))
        self.transport.write(head + (b"\0\0\0\0" if mask else b"") + payload)

    def dataReceived(self, data):
        self.data += data
        if self.head is None:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head, self.data = self.data[:end].decode(), self.data[end + 4 :]
            self.shaken.callback(None)
        if self.head.startswith("HTTP/1.1 101"):
            self._frames()

    def _frames(self):
        data, at = self.data, 0
        while len(data) - at >= 2:
            opcode, size, start = data[at] & 15, data[at + 1], at + 2
            reserved = data[at] & 0x70
            assert reserved == 0 or (reserved == 0x40 and opcode == 1 and DEFLATE in self.head), "reserved bits"
            assert not size & 0x80, "a server must not mask"
            assert opcode in {1, 8, 9, 10}, f"a frame of kind {opcode}: the stream is corrupted"
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
            if len(data) < start + size:
                break
            payload = data[start : start + size]
            if reserved:
                self.compressed += 1
                payload = inflated(payload)
            self._take(opcode, payload)
            at = start + size
        self.data = data[at:]

    def _take(self, opcode, payload):
        if opcode == 1:
            assert self.close_code is None, "a message behind the close frame"
            self.messages.append(payload)
        elif opcode == 9:
            self.pings += 1
            if self.answers_pings:
                self.frame(10, payload)
        elif opcode == 8:
            self.close_code = int.from_bytes(payload[:2])
            if self.answers_close:
                self.frame(8, payload)

    def connectionLost(self, reason):
        self.lost = True

    @property
    def json(self):
        return [json.loads(message) for message in self.messages]

    async def until(self, count):
        await until(lambda: len(self.messages) >= count or self.lost)
        assert len(self.messages) >= count, (self.close_code, self.messages[-3:])

    async def closed(self):
        await until(lambda: self.lost)
        return self.close_code


def inflated(payload):
    """A compressed message, by the receiver's rule (RFC 7692 section 7.2.2), with a window no larger than was agreed."""
    stream = zlib.decompressobj(-12)
    found = stream.decompress(payload + b"\x00\x00\xff\xff")
    assert not stream.unused_data
    return found


def deflated(payload, *, window=15):
    """A compressed message, by the sender's rule (section 7.2.1)."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -window)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def until(condition, seconds=30):
    """Let the reactor turn until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        await task.deferLater(reactor, 0.002, lambda: None)
