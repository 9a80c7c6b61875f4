"""`websockets.broadcast()` to the members of a topic. Speaks Tower's protocol. With "deflate" it compresses.

websockets_server.py WS_PORT CONTROL_PORT [deflate]
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import resource
import sys
from collections import defaultdict
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

members: dict[str, set[ServerConnection]] = defaultdict(set)


def check(connection: ServerConnection, request: Request) -> Response | None:
    """Let in who shows the token."""
    shown = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
    if hmac.compare_digest(shown, os.environ["BENCH_TOKEN"]):
        return None
    return connection.respond(HTTPStatus.FORBIDDEN, "not known here\n")


async def client(connection: ServerConnection) -> None:
    """Greet, and replace the set of topics with each message."""
    current: set[str] = set()
    await connection.send('{"accept":true,"user":1}')
    try:
        async for message in connection:
            groups = json.loads(message)["groups"]
            wanted = {f"{group}-{type_}" for group, types in groups.items() for type_ in types}
            leave(connection, current - wanted)
            for name in wanted - current:
                members[name].add(connection)
            current = wanted
            await connection.send(json.dumps({"groups_current": sorted(wanted)}))
    finally:
        leave(connection, current)


def leave(connection: ServerConnection, names: set[str]) -> None:
    for name in names:
        members[name].discard(connection)
        if not members[name]:
            del members[name]


async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Broadcast each line: a topic and a text."""
    while line := await reader.readline():
        name, text = line.decode().rstrip("\n").split(" ", 1)
        broadcast(members.get(name, ()), text)
    writer.close()


async def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    await asyncio.start_server(control, "127.0.0.1", int(sys.argv[2]))
    compression = "deflate" if sys.argv[3:] == ["deflate"] else None
    options = {"compression": compression, "process_request": check, "max_size": 65536, "backlog": 4096}
    async with serve(client, "127.0.0.1", int(sys.argv[1]), **options) as server:
        await server.serve_forever()


asyncio.run(main())
