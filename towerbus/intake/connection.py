"""A connection of the HTTP listener: it reads a body when it is asked for, has time limits, and ends kindly.

Whatever still comes after the last answer is read for a while and thrown away: a client that is cut off while it sends
may lose the answer (RFC 9112 section 9.6).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import msgspec
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from towerbus.intake.bounded import MAX_BODY, BodyRefusedError
from towerbus.transports import write_now

SECONDS = 60
"""Seconds for a request's head, counted from the answer before it, and then for its body."""
LINGER = 30
"""Seconds that a connection is read on after its last answer, at the most."""
PASSED_OVER = 4 * MAX_BODY
"""Bytes that are read on after the last answer, at the most."""
_REASONS = {400: "Bad Request", 408: "Request Timeout"}


class BoundedConnection(HTTPChannel):
    """A connection that ends by saying so, and by reading on until the client ends it too, within bounds.

    Attributes:
        linger: Seconds that it reads on after its last answer.
        passed_over: Bytes that it still reads on then.
    """

    linger: float = LINGER
    passed_over: int = PASSED_OVER
    transport: Any
    # A request behind the one that is being answered waits in the socket.
    _optimisticEagerReadSize = 0  # noqa: N815 - Twisted's name
    _networkProducer: Any  # noqa: N815 - Twisted's name
    _leaving: IDelayedCall | None = None
    _head = b""

    @property
    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Method, target and version of the request whose head is complete."""
        return self._command, self._path, self._version

    def connectionMade(self) -> None:
        """Begin, with a time limit for the first request."""
        self._seconds = self.timeOut
        super().connectionMade()

    def getPeer(self) -> Any:  # noqa: N802 - Twisted's name
        """The client's address: the same for all requests. Behind a proxy it is known when the first one is there."""
        return self._peer

    def getHost(self) -> Any:  # noqa: N802 - Twisted's name
        """The address that the client came to: the same for all requests; the transport asks the kernel each time."""
        return self._host

    @cached_property
    def _peer(self) -> Any:
        return self.transport.getPeer()

    @cached_property
    def _host(self) -> Any:
        return self.transport.getHost()

    def hold(self) -> None:
        """Do not read on: the body is not asked for. Whoever renders the request has all the time."""
        self.paused = True
        self.setTimeout(None)
        self._networkProducer.pauseProducing()

    def go_on(self) -> None:
        """Read the body, from now on within the time limit."""
        if not self.paused:
            self.resetTimeout()
            return
        self.paused = False
        self.setTimeout(self._seconds)
        self._networkProducer.resumeProducing()
        self.dataReceived(b"")

    def resumeProducing(self) -> None:
        """What was sent is on its way; that is no reason to read a body that nobody wants."""
        super().resumeProducing()
        if self.paused:
            self._networkProducer.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        """Read. HTTPChannel would begin its time limit anew with every byte."""
        if self._leaving is None:
            try:
                LineReceiver.dataReceived(self, data)
            except ValueError:
                # Twisted makes a number of a length before it looks how many digits it has.
                if not self.line_mode:
                    raise
                self._respondToBadRequestAndDisconnect()
            return
        self.passed_over -= len(data)
        if self.passed_over < 0:
            self.transport.abortConnection()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:  # noqa: N802 - Twisted's
        """Keep the head of an answer: it is sent with what is written next, or by `flush`."""
        lines = [b"%b %b %b\r\n" % (version, code, reason)]
        lines += [b"%b: %b\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self._head = b"".join(lines) + b"\r\n"

    def write(self, data: bytes) -> None:
        """Send without a turn of the reactor. A last answer goes with the connection's end, which needs one."""
        data, self._head = self._head + data, b""
        if self.persistent:
            write_now(self.transport, data)
        else:
            self.transport.write(data)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Send pieces as one."""
        self.write(b"".join(pieces))

    def flush(self) -> None:
        """Send a head that nothing followed."""
        if self._head:
            self.write(b"")

    def allContentReceived(self) -> None:  # noqa: N802 - Twisted's name
        """The body is complete; it may have been refused before."""
        if self._leaving is None:
            super().allContentReceived()

    def timeoutConnection(self) -> None:  # noqa: N802 - Twisted's name
        """End a connection where nothing happens, or a request that takes too long."""
        if self.requests:
            self._refuse(408, f"the request did not come within {self._seconds} seconds")
        else:
            self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002, N802 - Twisted's
        """Refuse a line without an end; LineReceiver would cut the client off."""
        self._respondToBadRequestAndDisconnect()

    def loseConnection(self) -> None:
        """End the connection: send what is to be sent, and pass over what still comes, where anything is to come."""
        if self._leaving is not None:
            return
        # One that does not read its answers would be held for ever.
        self._leaving = self.callLater(self.linger, self.transport.abortConnection)
        self.setTimeout(None)
        rest, self._dataBuffer = self.clearLineBuffer() + b"".join(self._dataBuffer), []
        self.paused = False
        self._networkProducer.unregisterProducer()
        self._networkProducer.resumeProducing()
        if (self.length == 0 and not rest) or self.isSecure():
            # TLS says goodbye, and then reads on.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        super().connectionLost(reason)

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802 - Twisted's name
        limit = f"{self.totalHeadersSize} bytes or {self.maxHeaders} lines"
        self._refuse(400, f"this is not HTTP/1.1 as RFC 9112 has it, or its head is over {limit}")

    def _refuse(self, status: int, text: str) -> None:
        """Answer in place of whoever renders requests, unless a body was asked for."""
        if self._leaving is not None or (
            self.requests and self.requests[-1].refuse_body(BodyRefusedError(status, text))
        ):
            return
        body = msgspec.json.encode({"error": text}) + b"\n"
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        # More of it will come, whatever its head said.
        self.length = None
        self.loseConnection()
