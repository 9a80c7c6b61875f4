"""An ASGI application with a consumer like Ansible Tower's: a token, groups joined on demand, events passed on."""

from __future__ import annotations

import hmac
import os
from typing import Any
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from channels_layer import capacity, layer_class
from django.conf import settings

settings.configure(
    SECRET_KEY="bench",
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": f"{layer_class.__module__}.{layer_class.__qualname__}",
            "CONFIG": {"hosts": [os.environ["BENCH_REDIS"]], **capacity},
        }
    },
)


class EventConsumer(AsyncJsonWebsocketConsumer):
    """What Tower's consumer does for one group of events."""

    async def connect(self) -> None:
        """Check the token and greet."""
        shown = parse_qs(self.scope["query_string"].decode()).get("token", [""])[0]
        if not hmac.compare_digest(shown, os.environ["BENCH_TOKEN"]):
            await self.close()
            return
        self.joined: set[str] = set()
        await self.accept()
        await self.send_json({"accept": True, "user": 1})

    async def disconnect(self, _: int) -> None:
        """Leave all groups."""
        for name in getattr(self, "joined", ()):
            await self.channel_layer.group_discard(name, self.channel_name)

    async def receive_json(self, content: Any, **_: Any) -> None:
        """Join the groups that a client wants, leave the others."""
        wanted = {f"{group}-{type_}" for group, types in content["groups"].items() for type_ in types}
        joined, left = wanted - self.joined, self.joined - wanted
        for name in left:
            await self.channel_layer.group_discard(name, self.channel_name)
        for name in joined:
            await self.channel_layer.group_add(name, self.channel_name)
        self.joined = wanted
        await self.send_json(
            {"groups_current": sorted(wanted), "groups_left": sorted(left), "groups_joined": sorted(joined)}
        )

    async def internal_message(self, event: dict[str, str]) -> None:
        """Pass an event on."""
        await self.send(event["text"])


application = ProtocolTypeRouter({"websocket": EventConsumer.as_asgi()})
