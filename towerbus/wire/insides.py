"""What towerbus knows of the insides of Autobahn, all of it, with tests of its own.

Autobahn copies and pretty-prints 29 settings for every connection, keeps the whole handshake for the life of it and
formats log lines that nobody reads: 9.4 KB and 315 us for each client. `LeanProtocol` has its settings and first states
on the class and forgets what it no longer needs: under 4 KB and 200 us. A message that comes whole in one frame it
knows by a look (docs/decisions/0009). It was written against Autobahn 26.10; tests/wire runs the protocol's conformance
cases against it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from autobahn.exception import PayloadCorruptError, PayloadExceededError
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet import unix
from twisted.internet.interfaces import ITCPTransport

from towerbus.wire import deflate
from towerbus.wire.frames import is_pong, whole_text

MAX_HANDSHAKE = 16 * 1024
"""Bytes of a handshake request, at the most: its URL may hold a token of some kilobytes."""

MAX_PIECES = 4096
"""Frames that one message may be cut into."""


class Silent:
    """A logger for Autobahn's own lines: they hold URLs with tokens, and what matters is logged by us."""

    def debug(self, *_: object, **__: object) -> None:
        """Say nothing."""

    trace = info = warn = error = critical = failure = debug


class _Unheard:
    """A future that nobody waits for."""

    def callback(self, _: object) -> None:
        """Fire, unheard."""


class _Inflation:
    """What Autobahn asks to inflate messages: with its own each connection would keep 96 KB for both directions.

    Autobahn reads on where a connection has failed, for the client's close frame: nothing is inflated then.
    """

    EXTENSION_NAME = deflate.NAME
    __slots__ = ("_inflater",)

    def __init__(self) -> None:
        self._inflater: deflate.Inflater | None = None

    def start_decompress_message(self) -> None:
        """A message begins."""
        self._inflater = deflate.Inflater()

    def decompress_message_data(self, data: bytes, max_output_len: int | None) -> bytes:
        """Inflate a piece of it, within the room that it has."""
        assert max_output_len is not None  # noqa: S101 - the factory sets a bound
        inflater, self._inflater = self._inflater, None
        if inflater is None:
            return b""
        try:
            found = inflater.more(data, max_output_len)
        except deflate.TooLargeError as error:
            raise PayloadExceededError(str(error)) from error
        except deflate.CorruptError as error:
            raise PayloadCorruptError(str(error)) from error
        self._inflater = inflater
        return found

    def end_decompress_message(self) -> None:
        """The message is at its end."""
        inflater, self._inflater = self._inflater, None
        if inflater is None:
            return
        try:
            inflater.end()
        except deflate.CorruptError as error:
            raise PayloadCorruptError(str(error)) from error


_HANDSHAKE = (
    "http_headers", "http_request_data", "http_request_host", "http_request_params", "http_request_path",
    "http_request_uri", "http_response_data", "http_status_line", "websocket_extensions", "websocket_extensions_in_use",
    "websocket_origin", "websocket_protocols", "_wskey", "peer", "inside_message", "current_frame", "data",
    "websocket_protocol_in_use",
)  # fmt: skip
_MESSAGE = (
    "control_frame_data", "current_frame", "current_frame_masker", "data", "frame_data", "frame_length",
    "inside_message", "message_data", "message_data_total_length", "message_is_binary",
    "utf8validateIncomingCurrentMessage", "utf8validateLast", "utf8validator", "pieces", "_isMessageCompressed",
)  # fmt: skip


class LeanProtocol(WebSocketServerProtocol):  # type: ignore[misc]
    """Autobahn's protocol at the least cost per connection. Its settings are class attributes: see `settings_of`."""

    CONFIG_ATTRS: ClassVar[list[str]] = []
    log = Silent()
    is_open = is_closed = _Unheard()
    trafficStats = TrafficStats()  # noqa: N815 - Autobahn's name; shared by all, and read by nobody
    send_queue: ClassVar[tuple[()]] = ()
    peer = ""
    data = b""
    current_frame: Any = None
    inside_message = False
    http_response_data = None
    websocket_protocol_in_use = None
    websocket_extensions: deflate.Offers = ()
    _perMessageCompress: _Inflation | None = None  # noqa: N815
    trackedTimings = None  # noqa: N815
    send_state = WebSocketProtocol.SEND_STATE_GROUND
    state = WebSocketProtocol.STATE_CONNECTING
    triggered = False
    wasMaxFramePayloadSizeExceeded = wasMaxMessagePayloadSizeExceeded = False  # noqa: N815
    closedByMe = failedByMe = droppedByMe = wasClean = False  # noqa: N815
    wasServerConnectionDropTimeout = wasOpenHandshakeTimeout = wasCloseHandshakeTimeout = False  # noqa: N815
    wasServingFlashSocketPolicyFile = False  # noqa: N815
    wasNotCleanReason = localCloseCode = localCloseReason = remoteCloseCode = remoteCloseReason = None  # noqa: N815
    openHandshakeTimeoutCall = closeHandshakeTimeoutCall = None  # noqa: N815
    autoPingTimeoutCall = autoPingPending = autoPingPendingCall = autoPingPendingSent = None  # noqa: N815
    autoPingPendingSeq = 0  # noqa: N815

    def __init__(self) -> None:
        # Nothing of the base's: two futures and an address that nobody reads.
        pass

    def connectionMade(self) -> None:
        """Begin; all first states stand on the class."""
        if ITCPTransport.providedBy(self.transport) and not isinstance(self.transport, unix.Server):
            self.transport.setTcpNoDelay(True)
        self.factory.countConnections += 1

    def connectionLost(self, reason: Any = None) -> None:  # noqa: ARG002
        """End, once."""
        self.state = WebSocketProtocol.STATE_CLOSED
        self.factory.countConnections -= 1
        self._onClose(self.wasClean, self.remoteCloseCode, self.remoteCloseReason)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the client, and forget what the bytes before have left."""
        if self._is_between_frames:
            # Nearly all that clients send uncompressed (docs/decisions/0009).
            if (text := whole_text(data, self.maxMessagePayloadSize)) is not None:
                self.onMessage(text, False)
                return
            if is_pong(data):
                return
        connecting = self.state == WebSocketProtocol.STATE_CONNECTING
        self.data += data
        if connecting and len(self.data.split(b"\r\n\r\n", 1)[0]) > MAX_HANDSHAKE:
            self.failHandshake(f"handshake request is longer than {MAX_HANDSHAKE} bytes", 431)
            return
        self.consumeData()
        if self._is_between_frames:
            self._forget(_HANDSHAKE if connecting else _MESSAGE)
        if connecting and self.state == WebSocketProtocol.STATE_OPEN and not self.data:
            # A dictionary that has shrunk keeps its room until it is copied.
            self.__dict__ = dict(self.__dict__)

    def onFrameBegin(self) -> None:
        """Give each message a validator of its own: it has a state, and lives no longer than the message."""
        if self.current_frame.opcode < _CONTROL and not self.inside_message:
            self.utf8validator = Utf8Validator()
            self.pieces = 0
        super().onFrameBegin()

    def onMessageFrameEnd(self) -> None:
        """Bound the pieces of a message: empty ones count for nothing in its size."""
        super().onMessageFrameEnd()
        self.pieces += 1
        if self.pieces > MAX_PIECES and self.state == WebSocketProtocol.STATE_OPEN:
            self._fail_connection(1008, f"more than {MAX_PIECES} pieces in one message")

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:  # noqa: ARG002
        """Send Autobahn's own frames: handshakes, pongs and closes."""
        self.transport.write(data)

    def unregisterProducer(self) -> None:
        """Do nothing: the outlet is the producer, and flushes before the connection is closed."""

    def take_offer(self, *, compression: bool) -> str | None:
        """Look at the extensions that the client offers, within `onConnect`.

        Args:
            compression: Whether one for compression may be taken.

        Returns:
            What the answer's header `Sec-WebSocket-Extensions` has to say; None where none is taken.
        """
        # Autobahn must not see them: it fails the handshake for an offer that it has only to decline.
        offers, self.websocket_extensions = self.websocket_extensions, []
        taken = deflate.answer(offers) if compression else None
        if taken is not None:
            self._perMessageCompress = _Inflation()
        return taken

    @property
    def deflates(self) -> bool:
        """Whether the client takes compressed messages."""
        return self._perMessageCompress is not None

    @property
    def _is_between_frames(self) -> bool:
        """Whether the connection is open, and what comes next begins a message or a control frame."""
        return (
            self.state == WebSocketProtocol.STATE_OPEN
            and not self.data
            and self.current_frame is None
            and not self.inside_message
        )

    def _onOpen(self) -> None:  # noqa: N802
        self.onOpen()

    def _forget(self, names: tuple[str, ...]) -> None:
        own = self.__dict__
        for name in names:
            own.pop(name, None)


_CONTROL = 8


def settings_of(factory: Any) -> dict[str, Any]:
    """The settings of an Autobahn factory, as attributes for a `LeanProtocol` class."""
    settings = {name: getattr(factory, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}
    return {name: staticmethod(value) if callable(value) else value for name, value in settings.items()}
