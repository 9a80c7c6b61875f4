"""What pika is told of a broker."""

from __future__ import annotations

from typing import Any

from pika import ConnectionParameters, PlainCredentials

from towerbus.amqp.url import Broker


def parameters(broker: Broker, name: str, **more: Any) -> ConnectionParameters:
    """Pika's parameters for a connection.

    Args:
        broker: Where, and as whom.
        name: Shown in the broker's list of connections.
        **more: Others of pika's.
    """
    return ConnectionParameters(
        virtual_host=broker.vhost,
        credentials=PlainCredentials(broker.user, broker.password, erase_on_connect=False),
        heartbeat=broker.heartbeat,
        client_properties={"connection_name": name, "product": "towerbus"},
        **more,
    )
