"""An HTTP request that is rendered when its head is there; its body comes in when it is asked for, and bounded.

twisted.web takes in the whole of a body, on disk where it is large, before anybody is asked. Here the resource is asked
first: it wants the body (`receive`), or it answers at once and the body is passed over (`connection.py`).
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.web.server import Request

from towerbus.errors import PeerError, TowerbusError

if TYPE_CHECKING:
    from towerbus.intake.connection import BoundedConnection

MAX_BODY = 16 * 1024 * 1024
"""Bytes in a request's body, at the most."""


class BodyRefusedError(PeerError):
    """A body is not taken in, or not to its end.

    Args:
        status: The HTTP status that says so.
        text: What is wrong with it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class GoneError(TowerbusError):
    """The client went away before all of the body was there."""


class Room:
    """Room for the bodies that are being received and those that wait for an answer, of all connections together.

    Args:
        size: Bytes, at the most; a body that is alone may be larger.

    Attributes:
        taken: Bytes that are taken.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.taken = 0

    def take(self, size: int, own: int = 0) -> None:
        """Take room for a body or for a part of it.

        Args:
            size: Bytes.
            own: Bytes that this body has taken before.

        Raises:
            BodyRefusedError: There is no room now.
        """
        others = self.taken - own
        if others and self.taken + size > self._size:
            text = f"{others} bytes are being received or wait for their confirmation; come back later"
            raise BodyRefusedError(429, text)
        self.taken += size

    def give_back(self, size: int) -> None:
        """Let go of room that was taken."""
        self.taken -= size


class BoundedRequest(Request):
    """A request that is rendered when its head is complete; whoever renders it asks for its body, or does not.

    Attributes:
        max_body: Bytes in the body, at the most.
        gone: Whether the client went away.
    """

    channel: BoundedConnection
    content: BytesIO
    max_body = MAX_BODY
    gone = False
    _length: int | None = 0
    _early = False
    _expects = False
    _persistent = 1
    _receiving: Deferred[bytes] | None = None
    _room: Room | None = None
    _held = 0
    _received = 0

    def receive(self, room: Room) -> Deferred[bytes]:
        """Take in the body. Ask once.

        Args:
            room: Where it is counted, until `release`.

        Returns:
            A Deferred that fails with `BodyRefusedError` or `GoneError`.
        """
        if self.gone:
            return fail(GoneError("the client went away"))
        if not self._early:
            return succeed(b"")
        self._room = room
        try:
            self._check(self._length or 0)
            self.take(self._length or 0)
        except BodyRefusedError as error:
            return fail(error)
        receiving = self._receiving = Deferred()
        if self._expects:
            self.channel.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.channel.go_on()
        return receiving

    def take(self, size: int) -> None:
        """Take more room, for bytes of the body or for what is made of them.

        Raises:
            BodyRefusedError: There is none now.
        """
        if self._room is not None:
            self._room.take(size, self._held)
            self._held += size

    def release(self) -> None:
        """Let go of the room that was taken."""
        if self._room is not None:
            self._room.give_back(self._held)
            self._room = None

    def refuse_body(self, error: TowerbusError) -> bool:
        """Stop taking in the body.

        Returns:
            Whether it was being taken in.
        """
        receiving, self._receiving = self._receiving, None
        if receiving is None:
            return False
        receiving.errback(error)
        if not self.finished and not self.gone:
            self.channel.hold()
        return True

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """Render the request, before its body. One without a body is rendered by Twisted, right after this."""
        self.content = BytesIO()
        self._length = length
        if length == 0:
            return
        channel = self.channel
        command, path, version = channel.request_line
        expected = self.requestHeaders.getRawHeaders(b"expect")
        if expected is not None:
            self._expects = expected[0].lower() == b"100-continue" and version == b"HTTP/1.1"
            # Twisted would invite a body that nobody has asked for.
            self.requestHeaders.removeHeader(b"expect")
        # An answer that does not wait for the body is the connection's last.
        self._early, self._persistent, channel.persistent = True, channel.persistent, 0
        super().requestReceived(command, path, version)
        if self._receiving is None and not self.finished:
            channel.hold()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Take a piece of the body, or pass it over."""
        if self._receiving is None:
            return
        self._received += len(data)
        try:
            if self._received > self._held:
                # Its length was not known.
                self._check(self._received)
                self.take(self._received - self._held)
        except BodyRefusedError as error:
            self.refuse_body(error)
        else:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802 - Twisted's name
        """All of it is there."""
        if not self._early:
            super().requestReceived(command, path, version)
            return
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            self.channel.persistent = self._persistent
            body = self.content.getvalue()
            self.content.close()
            receiving.callback(body)

    def write(self, data: bytes) -> None:
        """Say with the head of the answer that it is the last one, where it is."""
        if not self.startedWriting and not self.gone and not self.channel.persistent:
            self.responseHeaders.setRawHeaders(b"connection", [b"close"])
        super().write(data)
        if not self.gone:
            self.channel.flush()

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        self.gone = True
        super().connectionLost(reason)
        self.refuse_body(GoneError("the client went away"))

    def _check(self, size: int) -> None:
        if size > self.max_body:
            raise BodyRefusedError(413, f"the body is over the limit of {self.max_body} bytes")
