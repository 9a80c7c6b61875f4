"""The plain way: `sendMessage` to each subscribed client. With "deflate" it compresses for clients that offer that.

sendmessage.py WS_PORT CONTROL_PORT TOKEN [deflate]
"""

from __future__ import annotations

import hmac
import json
import resource
import sys

from twisted.internet import epollreactor

epollreactor.install()

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol  # noqa: E402 - the reactor comes first
from autobahn.websocket.compress import (  # noqa: E402 - the reactor comes first
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
)
from autobahn.websocket.types import ConnectionDeny  # noqa: E402 - the reactor comes first
from twisted.internet import reactor  # noqa: E402 - the reactor comes first
from twisted.internet.protocol import Factory  # noqa: E402 - the reactor comes first
from twisted.protocols.basic import LineOnlyReceiver  # noqa: E402 - the reactor comes first

subscribers: set[Client] = set()


class Client(WebSocketServerProtocol):
    """Speaks as much of Tower's protocol as one group needs."""

    def onConnect(self, request):
        """Check the token."""
        if not hmac.compare_digest(request.params.get("token", [""])[0], sys.argv[3]):
            raise ConnectionDeny(403, "not known here")

    def onOpen(self):
        """Greet."""
        self.sendMessage(b'{"accept":true,"user":1}')

    def onMessage(self, payload, isBinary):  # noqa: ARG002, N803 - Autobahn's names
        """Subscribe."""
        if "status_changed" in json.loads(payload)["groups"]["jobs"]:
            subscribers.add(self)
            self.sendMessage(b'{"groups_current":["jobs-status_changed"]}')

    def onClose(self, wasClean, code, reason):  # noqa: ARG002, N803 - Autobahn's names
        """Forget it."""
        subscribers.discard(self)


class Control(LineOnlyReceiver):
    """Broadcasts each line."""

    delimiter = b"\n"

    def lineReceived(self, line):
        """Send it to all."""
        for each in subscribers:
            each.sendMessage(line)


def accepted(offers):
    """Compress as the client offers it: without context takeover, if it says so."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
factory = WebSocketServerFactory()
factory.protocol = Client
factory.setProtocolOptions(openHandshakeTimeout=30)
if sys.argv[4:] == ["deflate"]:
    factory.setProtocolOptions(perMessageCompressionAccept=accepted)
reactor.listenTCP(int(sys.argv[1]), factory, backlog=4096, interface="127.0.0.1")
reactor.listenTCP(int(sys.argv[2]), Factory.forProtocol(Control), interface="127.0.0.1")
reactor.run()
