"""Listening on endpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger

from towerbus.endpoints import endpoint, is_shared
from towerbus.errors import ConfigError
from towerbus.turns import Turns

if TYPE_CHECKING:
    from towerbus.certificates import Certificates

_log = Logger()


class Listener(Service):
    """Listens on an endpoint while it runs.

    A failed bind ends the process with a message and exit code 1: one that serves nothing would look healthy.

    Args:
        reactor: Listens.
        description: The endpoint.
        factory: Makes the protocols.
        option: Where the description was given, for messages.
        load: How many clients the process has, for a socket that it shares with others; None where that is no matter.
    """

    def __init__(
        self, reactor: Any, description: str, factory: Any, option: str, load: Callable[[], int] | None = None
    ) -> None:
        try:
            self._endpoint = endpoint(reactor, description)
        except ConfigError as error:
            raise ConfigError(f"{option}: {error}") from error
        except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
            raise ConfigError(
                f"{option}: {description!r} is no endpoint ({error}); wanted is tcp:8051:interface=127.0.0.1 or so"
            ) from error
        self.description = description
        self._reactor = reactor
        self._factory = factory
        self._load = load
        self.option = option
        self._port: IListeningPort | None = None
        self._turns: Turns | None = None
        factory.noisy = False

    def startService(self) -> None:
        """Begin to listen."""
        super().startService()
        outcome: list[object] = []
        self._endpoint.listen(self._factory).addBoth(outcome.append)
        (port,) = outcome
        if not IListeningPort.providedBy(port):
            reason = getattr(port, "value", port)
            cause = reason.socketError if isinstance(reason, CannotListenError) else reason
            raise SystemExit(
                f"towerbus: can't listen on {self.description}: {str(cause).rstrip('.')}; "
                f"choose another with {self.option}"
            )
        self._port = port
        if self._load is not None and is_shared(self.description):
            self._turns = Turns(port, self._load, self._reactor)
        _log.info("listening: {option} at {address}", option=self.option, address=self.address)

    @property
    def certificates(self) -> Certificates | None:
        """What it shows, where it speaks TLS, for reloading."""
        return getattr(self._endpoint, "certificates", None)

    @property
    def address(self) -> IAddress:
        """Where it listens."""
        assert self._port is not None  # noqa: S101 - asked of a running service only
        return self._port.getHost()

    def stopService(self) -> Deferred[None]:
        """Stop listening; connections stay."""
        super().stopService()
        if self._turns is not None:
            self._turns.stop()
        return maybeDeferred(self._port.stopListening if self._port is not None else _nothing).addCallback(_forget)


class Gate(MultiService):
    """A listener that waits for something before it begins to listen.

    Args:
        listener: The listener.
        ready: Asked once when this begins; listening begins when the answer fires.
        hopeless: Called with a message when it can't listen.
    """

    def __init__(
        self, listener: Listener, ready: Callable[[], Deferred[None]], hopeless: Callable[[str], None]
    ) -> None:
        super().__init__()
        self.open = False
        """Whether it listens."""
        self._listener = listener
        self._ready = ready
        self._hopeless = hopeless

    def startService(self) -> None:
        """Begin to wait."""
        super().startService()
        self._ready().addCallback(self._open)

    def _open(self, _: None) -> None:
        if not self.running or self.open:
            return
        try:
            self._listener.setServiceParent(self)
        except SystemExit as error:
            self._hopeless(str(error))
        else:
            self.open = True


def _nothing() -> None:
    """There was nothing to stop."""


def _forget(_: object) -> None:
    """Only the end counts."""
