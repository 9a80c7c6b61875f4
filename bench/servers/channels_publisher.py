"""Send each line that comes in on a TCP port to the group, as Tower's `emit_channel_notification` does.

channels_publisher.py PORT
"""

from __future__ import annotations

import asyncio
import os
import sys

from channels_redis.core import RedisChannelLayer


async def main() -> None:
    layer = RedisChannelLayer(hosts=[os.environ["BENCH_REDIS"]], capacity=10000)

    async def publish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            text = line.decode().rstrip("\n")
            await layer.group_send("jobs-status_changed", {"type": "internal.message", "text": text})
        writer.close()

    server = await asyncio.start_server(publish, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
