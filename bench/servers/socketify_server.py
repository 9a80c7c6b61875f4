"""uWebSockets' topics. Speaks Tower's protocol; who opens /publish sends a topic and a text.

With "deflate" it compresses.

socketify_server.py PORT [deflate]
"""

from __future__ import annotations

import hmac
import json
import os
import resource
import sys

from socketify import App, AppListenOptions, CompressOptions, OpCode

NO_LIMIT = 0
DEFLATES = sys.argv[2:] == ["deflate"]
COMMON = {
    "compression": CompressOptions.SHARED_COMPRESSOR if DEFLATES else CompressOptions.DISABLED,
    "max_payload_length": 65536,
    "idle_timeout": NO_LIMIT,
    "max_backpressure": 64 * 1024 * 1024,
}


def upgrade(response, request, context):
    """Let in who shows the token."""
    if not hmac.compare_digest(request.get_query("token") or "", os.environ["BENCH_TOKEN"]):
        response.write_status(403).end("not known here")
        return
    response.upgrade(
        request.get_header("sec-websocket-key"),
        request.get_header("sec-websocket-protocol"),
        request.get_header("sec-websocket-extensions"),
        context,
        set(),
    )


def opened(ws):
    """Greet."""
    ws.send('{"accept":true,"user":1}', OpCode.TEXT)


def received(ws, message, _):
    """Replace the set of topics."""
    current = ws.get_user_data()
    groups = json.loads(message)["groups"]
    wanted = {f"{group}-{type_}" for group, types in groups.items() for type_ in types}
    for name in current - wanted:
        ws.unsubscribe(name)
    for name in wanted - current:
        ws.subscribe(name)
    current.clear()
    current.update(wanted)
    ws.send(json.dumps({"groups_current": sorted(wanted)}), OpCode.TEXT)


def published(_, message, __):
    """Publish to the topic's members."""
    name, text = message.split(" ", 1)
    app.publish(name, text, OpCode.TEXT, DEFLATES)


_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
app = App()
app.ws("/websocket/", {**COMMON, "upgrade": upgrade, "open": opened, "message": received})
app.ws("/publish", {**COMMON, "upgrade": upgrade, "message": published})
app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"))
# Not app.run(): that drives uWebSockets from asyncio's loop, which polls. Nothing here needs asyncio.
app.loop.uv_loop.run()
