"""The servers that are measured, one module each."""

from __future__ import annotations

from peers import (
    channels,
    floor,
    mosquitto,
    nats,
    nchan,
    node,
    sendmessage,
    socketify,
    towerbus,
    towerbus_rabbitmq,
    websockets,
    webstomp,
)
from peers.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        towerbus.PEER,
        towerbus_rabbitmq.PEER,
        channels.PEER,
        channels.UNDER_UVICORN,
        sendmessage.PEER,
        webstomp.PEER,
        socketify.PEER,
        nchan.PEER,
        node.WS,
        node.SOCKET_IO,
        nats.PEER,
        mosquitto.PEER,
        websockets.PEER,
        floor.PEER,
        floor.JOINED,
    )
}
