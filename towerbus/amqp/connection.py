"""One connection to the broker: pika's Twisted adapter, with what it lacks.

It puts deliveries together itself (frames.py), gives up a peer that is silent also while bytes are unsent, knows why it
was lost, and tells when the broker blocks publishers (its memory or disk alarm).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pika import exceptions
from pika.adapters.twisted_connection import TwistedProtocolConnection
from pika.channel import Channel as PikaChannel
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure

from towerbus.amqp.channel import Channel, Confirms, Consumers, pass_over
from towerbus.amqp.errors import ChannelClosed
from towerbus.amqp.frames import Frames
from towerbus.amqp.greeting import expect_amqp
from towerbus.amqp.layout import OVERHEAD
from towerbus.amqp.parameters import parameters
from towerbus.amqp.silence import Silence
from towerbus.amqp.url import Broker
from towerbus.errors import ConfigError
from towerbus.transports import write_now

ATTEMPTS = 0.1
"""Seconds between attempts at the addresses of one name; a refusal by the last is known after as long."""
LINGER = 2.0
"""Seconds that an end of ours may wait for bytes that the peer does not take."""


class Connection(TwistedProtocolConnection):  # type: ignore[misc]
    """A connection. Made by `connect`.

    Args:
        broker: Whose it is.
        name: Shown in the broker's list of connections.
        reactor: Tells the time.
    """

    def __init__(self, broker: Broker, name: str, reactor: Any) -> None:
        super().__init__(parameters(broker, name), custom_reactor=reactor)
        self.opened: Deferred[Any] = self.ready
        self.reason: BaseException | None = None
        """Why it is gone; None while it is there."""
        self.on_broken: Callable[[BaseException], None] | None = None
        """Called once with the reason when the broker closes a vital channel, or the connection is gone."""
        self.on_blocked: Callable[[bool, str], None] | None = None
        """Called with True and the reason when the broker blocks us, and with False when it no longer does."""
        self.blocked = False
        """Whether the broker takes nothing from us now, for an alarm of its own."""
        self._when_lost: dict[Callable[[BaseException], object], None] = {}
        self._clock = reactor
        self._abort: IDelayedCall | None = None
        impl = self._impl
        self._consumers: Consumers = {}
        self._confirms: Confirms = {}
        self._frames = Frames(self._consumers, self._confirms, impl.data_received)
        impl._output_marshaled_frames = self._send  # noqa: SLF001
        Silence.watch(impl)
        expect_amqp(impl)
        # pika would wait for the peer to take what is unsent before it lets go of it: for ever, if the peer is stuck.
        impl._adapter_disconnect_stream = self._drop  # noqa: SLF001
        impl.add_on_connection_blocked_callback(lambda _, frame: self._was_blocked(True, frame.method.reason))
        impl.add_on_connection_unblocked_callback(lambda *_: self._was_blocked(False, ""))

    @property
    def frame_max(self) -> int:
        """Bytes in a frame, at the most, as it was agreed with the broker."""
        return int(self._impl.params.frame_max)

    @property
    def server_properties(self) -> dict[str, Any]:
        """What the broker says of itself: product, version, capabilities."""
        return dict(self._impl.server_properties or {})

    def lost(self) -> Deferred[BaseException]:
        """A Deferred that fires with the reason when the connection is gone."""
        gone: Deferred[BaseException] = Deferred()
        self._call_when_lost(gone.callback)
        return gone

    def channel(self, *, vital: bool = True) -> Deferred[Channel]:
        """Open a channel.

        Args:
            vital: Whether the connection is of no more use when the broker closes the channel.
        """
        opened: Deferred[Channel] = Deferred()

        def open_(channel: PikaChannel) -> None:
            self._when_lost.pop(failed, None)
            if opened.called:
                # Whoever wanted it was cancelled meanwhile.
                channel.close()
            else:
                made = Channel(channel, self._consumers, self._confirms, self._send, self.frame_max - OVERHEAD)
                made.on_closed = self._broken if vital else None
                opened.callback(made)

        def failed(reason: BaseException) -> None:
            if not opened.called:
                opened.errback(ChannelClosed(0, str(reason)))

        self._call_when_lost(failed)
        try:
            self._impl.channel(on_open_callback=open_)
        except exceptions.AMQPError as error:
            failed(error)
        return opened

    def end(self) -> Deferred[BaseException]:
        """Close it, gently where the peer takes part, in bounded time where not; fires when it is gone."""
        self.on_broken = None
        self._consumers.update(dict.fromkeys(self._consumers, pass_over))
        if self._impl.is_open:
            self._impl.close()
            self._abort_later()
        elif self.reason is None:
            self.transport.abortConnection()
        return self.lost()

    def dataReceived(self, data: bytes) -> None:
        """Take the broker's bytes."""
        impl = self._impl
        if (impl.is_open or impl.is_closing) and not impl._frame_buffer:  # noqa: SLF001
            before = self._frames.taken
            self._frames.received(data)
            # By these pika knows that the broker is alive.
            impl.bytes_received += self._frames.taken - before
        else:
            impl.data_received(self._frames.left() + data)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        """Keep the real reason: pika forgets it."""
        error: Any = self._impl._error or reason.value  # noqa: SLF001
        try:
            super().connectionLost(reason)
        finally:
            self.reason = error
            if self._abort is not None:
                self._abort.cancel()
            self._broken(error)
            calls, self._when_lost = self._when_lost, {}
            for call in calls:
                call(error)

    def _send(self, frames: Sequence[bytes]) -> None:
        """Send frames of pika's together, and at once."""
        data = b"".join(frames)
        self._impl.bytes_sent += len(data)
        self._impl.frames_sent += len(frames)
        write_now(self._impl._transport, data)  # noqa: SLF001 - ours has none yet when pika says hello

    def _call_when_lost(self, call: Callable[[BaseException], object]) -> None:
        if self.reason is not None:
            call(self.reason)
        else:
            self._when_lost[call] = None

    def _broken(self, error: BaseException) -> None:
        on_broken, self.on_broken = self.on_broken, None
        # pika closes the channels before the connection: the connection's own reason is the better one.
        if on_broken is not None and (self.reason is not None or not self._impl.is_closed):
            on_broken(error)
        else:
            self.on_broken = on_broken

    def _drop(self) -> None:
        self.transport.loseConnection()
        self._abort_later()

    def _abort_later(self) -> None:
        if self._abort is None:
            self._abort = self._clock.callLater(LINGER, self._abort_now)

    def _abort_now(self) -> None:
        self._abort = None
        self.transport.abortConnection()

    def _was_blocked(self, blocked: bool, reason: str) -> None:  # noqa: FBT001
        self.blocked = blocked
        if self.on_blocked is not None:
            self.on_blocked(blocked, reason)


async def connect(broker: Broker, name: str, reactor: Any, *, timeout: float = 10.0) -> Connection:
    """Connect and log in.

    Args:
        broker: Where.
        name: Shown in the broker's list of connections.
        reactor: Connects, and tells the time.
        timeout: Seconds for the connection, and again for the login: a peer that says nothing is given up.

    Raises:
        Exception: It did not come about; `errors.trouble` says what it means. Nothing of it is left.
    """
    factory = _Factory(broker, name, reactor)
    protocol: Any = await _endpoint(broker, reactor, timeout).connect(factory)
    # With TLS the endpoint hands out a wrapper.
    connection: Connection = getattr(protocol, "wrappedProtocol", protocol)
    # Or what follows a heartbeat, which has no answer, would wait 40 ms for its acknowledgement.
    connection.transport.setTcpNoDelay(True)  # noqa: FBT003
    late = reactor.callLater(timeout, connection.transport.abortConnection)
    try:
        await connection.opened
    except BaseException as error:
        connection.transport.abortConnection()
        reason = await connection.lost()
        if isinstance(error, CancelledError):
            raise
        if not late.active():
            raise TimeoutError(f"no answer within {timeout:g} s") from error
        if isinstance(reason, ConnectionDone | ConnectionLost) and not connection._impl.bytes_received:  # noqa: SLF001
            raise exceptions.IncompatibleProtocolError(str(reason)) from error
        raise reason from error
    finally:
        if late.active():
            late.cancel()
    return connection


class _Factory(Factory):
    """Makes the one connection."""

    noisy = False

    def __init__(self, broker: Broker, name: str, reactor: Any) -> None:
        self._made = broker, name, reactor

    def buildProtocol(self, addr: object) -> Connection:  # noqa: ARG002
        return Connection(*self._made)


def _endpoint(broker: Broker, reactor: Any, timeout: float) -> Any:
    endpoint = HostnameEndpoint(reactor, broker.host, broker.port, timeout=timeout, attemptDelay=ATTEMPTS)
    return wrapClientTLS(tls_options(broker), endpoint) if broker.tls else endpoint


def tls_options(broker: Broker) -> Any:
    """How TLS is spoken: the certificate must be good, and for the broker's host (service-identity); TLS 1.2 or later.

    Raises:
        ConfigError: A certificate file can't be used.
    """
    try:
        trust = trustRootFromCertificates(_certificates(broker.cacertfile)) if broker.cacertfile else None
        ours = PrivateCertificate.loadPEM(_pem(broker)) if broker.certfile else None
    except Exception as error:
        raise ConfigError(f"cacertfile, certfile or keyfile is not a PEM file that can be used: {error}") from error
    return optionsForClientTLS(broker.host, trustRoot=trust, clientCertificate=ours)


def _pem(broker: Broker) -> bytes:
    paths = [broker.certfile, broker.keyfile] if broker.keyfile else [broker.certfile]
    return b"\n".join(Path(path).read_bytes() for path in paths)


def _certificates(path: str) -> list[Certificate]:
    """The certificates of a PEM file that may hold several."""
    end = b"-----END CERTIFICATE-----"
    blocks = Path(path).read_bytes().split(end)[:-1]
    if not blocks:
        raise ValueError(f"{path} holds no certificate")
    return [Certificate.loadPEM(block + end) for block in blocks]
