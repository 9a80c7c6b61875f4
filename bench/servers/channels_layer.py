"""Which of channels_redis's two layers is measured."""

from __future__ import annotations

import os

from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

pubsub = os.environ["BENCH_LAYER"] == "pubsub"
layer_class = RedisPubSubChannelLayer if pubsub else RedisChannelLayer
capacity = {} if pubsub else {"capacity": 10000}
"""Only the core layer has a bound: past it events are dropped."""
