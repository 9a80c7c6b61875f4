"""Send each line that comes in on a TCP port to its group, as Tower's `emit_channel_notification` does.

A line is a group and a text.

channels_publisher.py PORT
"""

from __future__ import annotations

import asyncio
import os
import sys

from channels_layer import capacity, layer_class


async def main() -> None:
    layer = layer_class(hosts=[os.environ["BENCH_REDIS"]], **capacity)

    async def publish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            group, text = line.decode().rstrip("\n").split(" ", 1)
            await layer.group_send(group, {"type": "internal.message", "text": text})
        writer.close()

    server = await asyncio.start_server(publish, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
