"""RabbitMQ: the only rooms that know pika, and whatever stands on them."""
