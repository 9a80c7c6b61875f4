"""A program that behaves as AWX 24.6.1's `wsrelay` does, written from its protocol, on the same libraries.

It hears of web nodes by `web_ws_heartbeat` (psycopg), or is given one; it dials each with aiohttp, a fresh secret and a
heartbeat of 20 s, and comes back when a connection ends, at the node's next heartbeat; a node that takes its leave is let go at
once; a database that is lost is looked for again, and the connections stay. It has a producer for each group that a node asks
for, and one for "metrics" that nobody asks for; what is emitted to a group for which there is no producer is lost; a group's
producer ends some time after the last wish for it, or with its connection to Redis, of which the node hears nothing.

Commands are JSON lines on standard input: `{"emit": GROUP, "payload": {...}}`, and `{"lose_redis": GROUP}`. What happens is told
in JSON lines; `warned` is what AWX would log as a warning or an error.

    python awx_relay.py --secret S --port P (--database URL | --node HOST) [--hostname NAME] [--clock SECONDS]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import sys
import time

import aiohttp
import psycopg

POLL = 0.1
"""Seconds between looks at the list of nodes; AWX's are 10."""


def tell(**said):
    print(json.dumps(said), flush=True)


def secret_header(secret, now):
    nonce = f"{int(now)}"
    said = json.dumps({"secret": secret, "nonce": nonce})
    return f"HMAC-SHA256 {nonce}:{hmac.new(secret.encode(), said.encode(), hashlib.sha256).hexdigest()}"


class Connection:
    """To one web node."""

    def __init__(self, host, given):
        self.host, self._given = host, given
        self.queues, self.subscriptions = {}, {}
        self.task = asyncio.get_running_loop().create_task(self._connect())

    def emit(self, group, text):
        queue = self.queues.get(group)
        if queue is not None:
            queue.put_nowait({"type": "internal.message", "text": text})

    def lose_redis(self, group):
        self.queues[group].put_nowait(None)

    async def _connect(self):
        header = secret_header(self._given.secret, time.time() + self._given.clock)
        if self._given.header is not None:
            header = self._given.header
        headers = {"secret": header} if header else {}
        url = f"http://{self.host}:{self._given.port}{self._given.path}"
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
                session.ws_connect(url, heartbeat=20) as socket,
            ):
                tell(connected=self.host)
                await self._run(socket)
        except aiohttp.WSServerHandshakeError as error:
            tell(refused=error.status, reason=error.message)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            tell(failed=str(error))
        except asyncio.CancelledError:
            tell(lost=self.host)
        else:
            tell(lost=self.host)

    async def _run(self, socket):
        producers = [self._start(socket, "metrics", "metrics")]
        self.emit("metrics", json.dumps({"instance": "task", "metrics": "x 1", "metrics_namespace": "relay"}))
        async for message in socket:
            said = json.loads(message.data)
            for group in said["groups"]:
                if said["type"] == "consumer.subscribe":
                    if group in self.queues:
                        self.subscriptions[group].add(said["origin_channel"])
                    else:
                        producers.append(self._start(socket, group, said["origin_channel"]))
                elif said["type"] == "consumer.unsubscribe":
                    try:
                        self.subscriptions[group].remove(said["origin_channel"])
                    except KeyError:
                        tell(warned=f"{group} is not subscribed to")
            tell(**{said["type"].rpartition(".")[2]: said["groups"]})
        for producer in producers:
            producer.cancel()

    def _start(self, socket, group, origin):
        self.queues[group], self.subscriptions[group] = asyncio.Queue(), {origin}
        return asyncio.get_running_loop().create_task(self._produce(socket, group))

    async def _produce(self, socket, group):
        try:
            while True:
                try:
                    message = await asyncio.wait_for(self.queues[group].get(), 10)
                except TimeoutError:
                    if not self.subscriptions[group]:
                        return
                    continue
                if message is None:
                    tell(lost_redis=group)
                    return
                await socket.send_json({"group": group, "message": message})
        except ConnectionResetError:
            pass
        finally:
            del self.queues[group], self.subscriptions[group]


class Relay:
    """All nodes."""

    def __init__(self, given):
        self._given = given
        self._known = {"given": given.node} if given.node else {}
        self._connections = {}

    async def run(self):
        loop = asyncio.get_running_loop()
        commands = loop.create_task(self._commands())
        listening = None
        while not commands.done():
            if self._given.database and (listening is None or listening.done()):
                if listening is not None:
                    tell(deaf=str(listening.exception()))
                listening = loop.create_task(self._listen())
            for name, connection in list(self._connections.items()):
                if connection.task.done():
                    del self._connections[name]
                    if not self._given.node:
                        self._known.pop(name, None)
            for name, host in self._known.items():
                if name not in self._connections:
                    self._connections[name] = Connection(host, self._given)
                elif self._connections[name].host != host:
                    # AWX's forgets the node, looks for it, and ends.
                    raise KeyError(name)
            await asyncio.sleep(POLL)
        commands.result()

    async def _listen(self):
        connection = await psycopg.AsyncConnection.connect(self._given.database, autocommit=True)
        async with connection:
            await connection.execute("LISTEN web_ws_heartbeat")
            tell(listens=True)
            async for notice in connection.notifies():
                await self._heard(json.loads(notice.payload))

    async def _heard(self, said):
        name = said.get("hostname")
        tell(heartbeat=said)
        if name == self._given.hostname:
            return
        if said.get("action") == "online":
            self._known[name] = said.get("ip") or name
        elif said.get("action") == "offline":
            self._known.pop(name, None)
            connection = self._connections.pop(name, None)
            if connection is not None:
                connection.task.cancel()
                await asyncio.wait([connection.task])

    async def _commands(self):
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            said = json.loads(line)
            for connection in self._connections.values():
                if "emit" in said:
                    connection.emit(said["emit"], json.dumps(said["payload"]))
                else:
                    connection.lose_redis(said["lose_redis"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--secret", default="")
    parser.add_argument("--header")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/websocket/relay/")
    parser.add_argument("--database")
    parser.add_argument("--node")
    parser.add_argument("--hostname", default="task-node")
    parser.add_argument("--clock", type=float, default=0)
    asyncio.run(Relay(parser.parse_args()).run())


if __name__ == "__main__":
    main()
