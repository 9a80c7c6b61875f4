"""Many clients of one server, on the third-party library `websockets`: v1 clients that resume, and clients of Tower's.

Run as a child: `python watchers.py URL TOKEN V1 TOWER JOBS`. Told `finish DIRECTORY MARKERS` on standard input, each waits for
the marker events on its topics, checks what it got against the files `confirmed-*` in the directory (one event a line: id,
topic), and all together print one JSON object of counts and faults.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import websockets

PATIENCE = 60.0
"""Seconds that a client gets for its last events, with all that it has to catch up."""


class Watcher:
    """One client.

    Attributes:
        topics: What it subscribes to, as `group-type`.
        got: The ids of the events it got, in order; over all its connections for a v1 client.
        faults: What was wrong, in words.
    """

    def __init__(self, url, token, number, jobs, *, v1):
        self.url, self.token, self.v1, self.number = url, token, v1, number
        job = number % jobs
        self.groups = {"jobs": ["status_changed"], "job_events": [job, (job + 1) % jobs]}
        self.topics = {"jobs-status_changed", f"job_events-{job}", f"job_events-{(job + 1) % jobs}"}
        self.got, self.faults, self.counts = [], [], Counter()
        self.position, self.markers, self.subscribed = None, set(), False
        self.newest = {}

    async def run(self):
        """Connect, and come back with the last position, for ever."""
        while True:
            try:
                await self.connected()
            except (OSError, websockets.WebSocketException, TimeoutError, asyncio.IncompleteReadError):
                pass
            self.counts["connections"] += 1
            await asyncio.sleep(0.1 + 0.01 * (self.number % 20))

    async def connected(self):
        """One connection."""
        self.newest = {} if not self.v1 else self.newest
        async with websockets.connect(
            f"{self.url}?token={self.token}", subprotocols=["towerbus.v1"] if self.v1 else None, open_timeout=10, ping_interval=None,
            compression=None, max_queue=None,
        ) as socket:  # fmt: skip
            message = {"groups": self.groups}
            if self.position is not None:
                message["since"] = self.position
            await socket.send(json.dumps(message))
            async for text in socket:
                self.take(json.loads(text))

    def take(self, message):
        """Look at one message."""
        self.subscribed = self.subscribed or "groups_current" in message
        if not self.v1:
            if "n" in message:
                self.event(message, message["topic"])
        elif "data" in message:
            if self.position is not None and order(message["position"]) <= order(self.position):
                self.faults.append(f"position {message['position']} after {self.position}")
            self.position = message["position"]
            self.event(message["data"], f"{message['group']}-{message['type']}")
        else:
            self.notice(message)

    def notice(self, message):
        """Look at what a v1 server says beside events."""
        self.position = message.get("position", self.position)
        if message.get("recovered") is False or message.get("groups_denied"):
            self.faults.append(f"not all of it: {message}")
        if "gap" in message or "error" in message:
            self.faults.append(str(message))
        if "stale" in message:
            self.counts["stale"] += 1

    def event(self, payload, topic):
        """Take an event: it must be ours, and per emitter and topic newer than the one before."""
        if topic not in self.topics or payload["topic"] != topic:
            self.faults.append(f"an event of {topic}: {payload}")
        if payload["emitter"] == "marker":
            self.markers.add(topic)
            return
        key = payload["emitter"], topic
        if payload["n"] <= self.newest.get(key, -1):
            self.faults.append(f"emitter {key} went back from {self.newest[key]} to {payload['n']}")
        self.newest[key] = payload["n"]
        self.counts["events"] += 1
        if self.v1:
            self.got.append(f"{payload['emitter']}-{payload['n']}")

    def judge(self, confirmed):
        """Compare what came with what was confirmed."""
        if not self.v1:
            return
        got = Counter(self.got)
        wanted = {id_ for id_, topic in confirmed.items() if topic in self.topics}
        missing = wanted - got.keys()
        repeated = [id_ for id_, count in got.items() if count > 1]
        if missing:
            self.faults.append(f"{len(missing)} of {len(wanted)} are missing, such as {sorted(missing)[:5]}")
        if repeated:
            self.faults.append(f"{len(repeated)} came more than once, such as {repeated[:5]}")
        if not self.markers >= self.topics:
            self.faults.append(f"no marker on {self.topics - self.markers}")


def order(position):
    """A position as something that can be compared, where the epoch is the same."""
    epoch, *numbers = position.split("-")
    return [epoch, *map(int, numbers)]


async def main(url, token, v1, tower, jobs):
    watchers = [Watcher(url, token, number, int(jobs), v1=number < int(v1)) for number in range(int(v1) + int(tower))]
    running = [asyncio.ensure_future(watcher.run()) for watcher in watchers]
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while not all(watcher.subscribed for watcher in watchers):
        await asyncio.sleep(0.05)
    print("watching", flush=True)
    directory = Path((await lines.readline()).decode().split(maxsplit=1)[1].strip())
    end = asyncio.get_running_loop().time() + PATIENCE
    while (
        not all(watcher.markers >= watcher.topics for watcher in watchers if watcher.v1)
        and asyncio.get_running_loop().time() < end
    ):
        await asyncio.sleep(0.1)
    confirmed = dict(line.split() for path in directory.glob("confirmed-*") for line in path.read_text().splitlines())
    for watcher in watchers:
        watcher.judge(confirmed)
    faults = [f"client {watcher.number}: {fault}" for watcher in watchers for fault in watcher.faults[:5]]
    counts = sum((watcher.counts for watcher in watchers), Counter())
    print(json.dumps({"confirmed": len(confirmed), "faults": faults[:50], "faulty": len(faults), **counts}), flush=True)
    for each in running:
        each.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
