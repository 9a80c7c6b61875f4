"""Emits one event with plain pika, as any AMQP client can: emit.py GROUP TYPE JSON [ID]."""

import os
import sys
import uuid

import pika

group, type_, payload, *rest = sys.argv[1:]
properties = pika.BasicProperties(
    content_type="application/json",
    delivery_mode=2,  # it survives a restart of the broker
    message_id=rest[0] if rest else str(uuid.uuid4()),  # the event's id: sent twice, it is broadcast once
)
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # so publishing returns when the broker has it, and raises NackError when it is full
    channel.basic_publish("towerbus", f"{group}.{type_}", payload.encode(), properties, mandatory=True)
print(properties.message_id)
