"""A crowd of v1 clients in one process, each on a bare socket: it comes, listens, is cut off, and comes back with positions.

Run as a child: `python crowd.py PORT TOKEN CLIENTS`. Commands on standard input, each answered by a line of JSON:

    join            connect and subscribe: to jobs-status_changed, and each client to one of 100 jobs
    until N         wait until each client has event number N of jobs-status_changed
    cut             reset all connections
    back            connect again, each with its last position
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections import Counter

PATIENCE = 120.0
AT_ONCE = 500
JOBS = 100
MASK = b"\0\0\0\0"


def frame(payload):
    """A text frame of a client's."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack("!BH", 0x80 | 126, len(payload))
    return b"\x81" + size + MASK + payload


class Client:
    """One client.

    Attributes:
        position: The last that it was told.
        last: The number of the last event of jobs-status_changed.
        told: What the last reply said of its recovery.
    """

    def __init__(self, number):
        self.number, self.job = number, number % JOBS
        self.position, self.told, self.socket = None, None, None
        self.last, self.last_of_job = -1, -1
        self.data, self.shaken = b"", False

    def connect(self, port, token, poll):
        self.data, self.shaken, self.told = b"", False, None
        self.socket = socket.socket()
        self.socket.setblocking(False)
        # Loopback has many addresses; one has ports for 28,000 connections.
        self.socket.connect_ex(("127.0.0.1", port))
        poll.register(self.socket, select.EPOLLIN)
        message = {"groups": {"jobs": ["status_changed"], "job_events": [self.job]}}
        if self.position:
            message["since"] = self.position
        payload = json.dumps(message).encode()
        self.hello = (
            f"GET /websocket/?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: towerbus.v1\r\n\r\n"
        ).encode() + frame(payload)  # fmt: skip
        poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def cut(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def received(self, data, faults):
        self.data += data
        if not self.shaken:
            head, end, rest = self.data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                faults["handshake refused"] += 1
            self.shaken, self.data = True, rest
        at = 0
        while len(self.data) - at >= 2:
            opcode, size, start = self.data[at] & 15, self.data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(self.data[at + 2 : at + 4]), at + 4
            elif size == 127:
                size, start = int.from_bytes(self.data[at + 2 : at + 10]), at + 10
            if len(self.data) < start + size:
                break
            if opcode == 1:
                self.take(json.loads(self.data[start : start + size]), faults)
            elif opcode == 9:
                self.socket.send(bytes([0x8A, 0x80]) + MASK)
            else:
                faults[f"opcode {opcode} {self.data[start : start + size][2:]}"] += 1
            at = start + size
        self.data = self.data[at:]

    def take(self, message, faults):
        self.position = message.get("position", self.position)
        if "groups_current" in message:
            self.told = message
            if message.get("recovered", True) is not True:
                faults["not recovered"] += 1
        elif "data" in message:
            number = message["data"]["n"]
            if message["group"] == "jobs":
                if number != self.last + 1 and self.last >= 0:
                    faults["out of order, lost or repeated"] += 1
                self.last = number
            else:
                if number <= self.last_of_job or message["type"] != str(self.job):
                    faults["wrong job's event"] += 1
                self.last_of_job = number
        elif "gap" in message or "error" in message:
            faults[str(message)] += 1


class Crowd:
    def __init__(self, port, token, count):
        self.port, self.token = port, token
        self.clients = [Client(number) for number in range(count)]
        self.poll, self.by_fd, self.faults = select.epoll(), {}, Counter()

    def come(self):
        """Connect all; returns how long it took until each was answered."""
        begin, waiting, shaking = time.monotonic(), list(reversed(self.clients)), set()
        while waiting or shaking:
            while waiting and len(shaking) < AT_ONCE:
                client = waiting.pop()
                client.connect(self.port, self.token, self.poll)
                self.by_fd[client.socket.fileno()] = client
                shaking.add(client)
            self.turn(0.1)
            shaking = {client for client in shaking if client.told is None}
            assert time.monotonic() < begin + PATIENCE, (
                f"{len(waiting)} wait, {len(shaking)} are not answered; {self.faults}"
            )
        return time.monotonic() - begin

    def turn(self, seconds):
        for fd, event in self.poll.poll(seconds):
            client = self.by_fd[fd]
            if event & select.EPOLLOUT:
                client.socket.send(client.hello)
                self.poll.modify(fd, select.EPOLLIN)
            if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                try:
                    data = client.socket.recv(1 << 18)
                except ConnectionError as error:
                    data = b""
                    self.faults[str(error)] += 1
                if data:
                    client.received(data, self.faults)
                else:
                    self.faults["closed"] += 1
                    self.poll.unregister(fd)

    def until(self, number):
        begin = time.monotonic()
        while any(client.last < number for client in self.clients):
            self.turn(0.1)
            behind = sum(client.last < number for client in self.clients)
            assert time.monotonic() < begin + PATIENCE, f"{behind} have not got event {number}; {self.faults}"
        return time.monotonic() - begin

    def cut(self):
        for client in self.clients:
            client.cut()
        self.by_fd.clear()


def main(port, token, count):
    crowd = Crowd(int(port), token, int(count))
    for line in sys.stdin:
        word, *given = line.split()
        seconds = 0.0
        try:
            if word in {"join", "back"}:
                seconds = crowd.come()
            elif word == "until":
                seconds = crowd.until(int(given[0]))
            elif word == "cut":
                crowd.cut()
        except (AssertionError, OSError) as error:
            crowd.faults[f"{word}: {error!r}"] += 1
        print(json.dumps({"seconds": round(seconds, 2), "faults": crowd.faults}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
