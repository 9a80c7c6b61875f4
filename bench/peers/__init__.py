"""The servers that are measured, one module each."""

from __future__ import annotations

from peers import channels, floor, nats, nchan, sendmessage, towerbus
from peers.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer for peer in (towerbus.PEER, channels.PEER, sendmessage.PEER, nchan.PEER, nats.PEER, floor.PEER)
}
