"""Many v1 clients in one process, each on a bare socket, that come back when they are told to, with their positions.

Run as a child: `python returning.py PORT TOKEN CLIENTS`. It prints a line of JSON when all have subscribed to
jobs-status_changed, and one when each of them has got an event with `"last": true`;
it stays connected until its standard input ends.
"""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import sys
import time
from collections import Counter

PATIENCE = 240.0
AT_ONCE = 200
MASK = b"\0\0\0\0"
AGAIN = 0.2
"""Seconds until another try, where a connection did not come about."""
_EVENT = re.compile(rb'"position":"([^"]+)".*"data":\{"n":(\d+)(,"last":true)?')


def frame(opcode, payload):
    """A client's frame."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack("!BH", 0x80 | 126, len(payload))
    return bytes([0x80 | opcode]) + size + MASK + payload


class Client:
    """One client over all of its connections."""

    def __init__(self):
        self.position, self.last, self.done = None, -1, False
        self.socket, self.told, self.after, self.left_at = None, False, None, None
        self.data, self.shaken = b"", False

    def connect(self, port, token, poll):
        self.data, self.shaken, self.told, self.after = b"", False, False, None
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))
        message = {"groups": {"jobs": ["status_changed"]}}
        if self.position:
            message["since"] = self.position
        self.hello = (
            f"GET /websocket/?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: towerbus.v1\r\n\r\n"
        ).encode() + frame(1, json.dumps(message).encode())
        poll.register(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def received(self, data, counts):
        self.data += data
        if not self.shaken:
            head, end, rest = self.data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                counts["handshake refused"] += 1
            self.shaken, self.data = True, rest
        for opcode, payload in self.frames():
            if opcode == 1:
                self.take(payload, counts)
            elif opcode == 9:
                self.socket.send(frame(10, payload))
            elif opcode == 8:
                counts[f"close {int.from_bytes(payload[:2])}"] += 1
                self.socket.send(frame(8, payload[:2]))

    def frames(self):
        data, at = self.data, 0
        while len(data) - at >= 2:
            opcode, size, start = data[at] & 15, data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
            if len(data) < start + size:
                break
            at = start + size
            yield opcode, data[start:at]
        self.data = data[at:]

    def take(self, payload, counts):
        event = _EVENT.search(payload)
        if event is None:
            self.take_other(json.loads(payload), counts)
            return
        number = int(event[2])
        if number <= self.last:
            counts["repeated"] += 1
        elif number != self.last + 1 and self.last >= 0:
            counts["lost or out of order"] += 1
        self.last, self.position, self.done = number, event[1].decode(), bool(event[3])

    def take_other(self, message, counts):
        self.position = message.get("position", self.position)
        if "groups_current" in message:
            self.told = True
            if message.get("recovered", True) is not True:
                counts["not recovered"] += 1
        elif "reconnect" in message:
            self.after = message["reconnect"]["after"]
        elif "gap" in message or "error" in message:
            counts[str(message)] += 1


class Returning:
    """All of them."""

    def __init__(self, port, token, count):
        self.port, self.token = port, token
        self.clients = [Client() for _ in range(count)]
        self.poll, self.by_fd, self.counts = select.epoll(), {}, Counter()
        self.due = [(0.0, client) for client in reversed(self.clients)]
        self.pauses, self.away = [], []

    def turn(self, seconds):
        now = time.monotonic()
        shaking = sum(not client.told for client in self.by_fd.values())
        ready = [pair for pair in self.due if pair[0] <= now][: max(0, AT_ONCE - shaking)]
        for pair in ready:
            self.due.remove(pair)
            client = pair[1]
            client.connect(self.port, self.token, self.poll)
            self.by_fd[client.socket.fileno()] = client
        for fd, event in self.poll.poll(seconds):
            client = self.by_fd[fd]
            try:
                if event & select.EPOLLOUT:
                    client.socket.send(client.hello)
                    self.poll.modify(fd, select.EPOLLIN)
                data = client.socket.recv(1 << 18) if event & ~select.EPOLLOUT else None
                if data:
                    was = client.told
                    client.received(data, self.counts)
                    if client.told and not was and client.left_at is not None:
                        self.away.append(time.monotonic() - client.left_at)
            except OSError as error:
                self.counts[f"tried again: {error.strerror}"] += 1
                data = b""
            if data == b"":
                self.gone(fd, client)

    def gone(self, fd, client):
        self.poll.unregister(fd)
        client.socket.close()
        del self.by_fd[fd]
        now = time.monotonic()
        if client.after is not None:
            self.pauses.append(client.after)
        if client.told:
            client.left_at = now
        self.due.append((now + (AGAIN if client.after is None else client.after), client))

    def until(self, condition, what):
        begin = time.monotonic()
        while not condition():
            self.turn(0.05)
            assert time.monotonic() < begin + PATIENCE, f"{what}: {self.counts}"

    def report(self):
        print(json.dumps({"counts": self.counts, "pauses": self.pauses, "away": self.away,
                          "last": sorted({client.last for client in self.clients})}), flush=True)  # fmt: skip


def main(port, token, count):
    returning = Returning(int(port), token, int(count))
    try:
        returning.until(lambda: all(client.told for client in returning.clients), "not all were answered")
        returning.report()
        returning.until(lambda: all(client.done for client in returning.clients), "not all have got the last event")
    except AssertionError as error:
        returning.counts[str(error)] += 1
    returning.report()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
