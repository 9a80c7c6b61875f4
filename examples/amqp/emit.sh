#!/bin/sh
# Emits one event with RabbitMQ's own rabbitmqadmin (over its management API): emit.sh GROUP TYPE JSON [ID].
# RABBITMQADMIN may hold options: --host, --port, --username, --password, --vhost.
set -eu
group=$1 type=$2 payload=$3 id=${4:-$(cat /proc/sys/kernel/random/uuid)}
properties=$(printf '{"content_type": "application/json", "delivery_mode": 2, "message_id": "%s"}' "$id")
# shellcheck disable=SC2086
said=$(rabbitmqadmin ${RABBITMQADMIN:-} publish exchange=towerbus "routing_key=$group.$type" \
    "payload=$payload" "properties=$properties")
case $said in
    *NOT*) echo "$said" >&2; exit 1 ;;
esac
echo "$id"
