"""What can go wrong between us and the broker, in words that say what to mend."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from pika import exceptions

from towerbus.amqp.url import Broker
from towerbus.errors import TowerbusError

ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
NOT_ALLOWED = 530


class ChannelClosed(TowerbusError):
    """A channel is closed, by the broker or with its connection.

    Args:
        code: The broker's reply code; 0 where it was not the broker who closed it.
        text: The broker's words.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}" if code else text)
        self.code = code
        self.text = text


class Unpublished(TowerbusError):
    """The broker did not take a message: it is in no queue.

    Args:
        text: The broker's words, or what its refusal means.
        returned: Whether it was returned, for there is no queue that it could go to; else it was refused (nack).
    """

    def __init__(self, text: str, *, returned: bool = False) -> None:
        super().__init__(text)
        self.returned = returned


class Mismatch(TowerbusError):
    """An object in the broker is not as it should be; the text names it, what it has, what is wanted, and the mend.

    Args:
        seen: The object, what it has and what is wanted.
        mend: What to do.
    """

    def __init__(self, seen: str, mend: str) -> None:
        super().__init__(f"{seen}: {mend}")
        self.seen = seen
        self.mend = mend


class NotAmqp(TowerbusError):
    """What answers there is no broker, or wants TLS."""


class Trouble(NamedTuple):
    """Why there is no session with the broker.

    Attributes:
        text: For a person, with what to mend.
        refused: True where trying again is of no use before somebody mends it.
    """

    text: str
    refused: bool


def trouble(error: BaseException, broker: Broker) -> Trouble:
    """Say what an error means.

    Args:
        error: Why a session ended, or never began.
        broker: The broker.
    """
    if isinstance(error, Mismatch):
        return Trouble(f"{broker}: {error}", refused=True)
    for kinds, code, text in _REFUSALS:
        if isinstance(error, kinds) and code in {0, getattr(error, "reply_code", getattr(error, "code", 0))}:
            return Trouble(f"{broker}: " + text.format(broker=broker, error=_words(error)), refused=True)
    return Trouble(f"{broker}: {_words(error)}", refused=isinstance(error, NotAmqp) or _is_tls(error))


_LOGIN = "the login of user {broker.user!r} is refused: look at the user's name and the password in the URL ({error})"
_REFUSALS: tuple[tuple[type[Exception], int, str], ...] = (
    (exceptions.ProbableAuthenticationError, 0, _LOGIN),
    (exceptions.AuthenticationError, 0, _LOGIN),
    (exceptions.ConnectionClosedByBroker, ACCESS_REFUSED, _LOGIN),
    (
        exceptions.ConnectionClosedByBroker,
        NOT_ALLOWED,
        "{error}: make the virtual host {broker.vhost!r}, or give user {broker.user!r} its permissions",
    ),
    (
        exceptions.ProbableAccessDeniedError,
        0,
        "user {broker.user!r} may not use virtual host {broker.vhost!r}: {error}",
    ),
    (ChannelClosed, ACCESS_REFUSED, "{error}: give user {broker.user!r} this permission (towerbus doctor lists all)"),
)


def _words(error: BaseException) -> str:
    if isinstance(error, exceptions.ConnectionClosed | exceptions.ChannelClosed):
        return f"{error.reply_code} {error.reply_text}"
    if isinstance(error, ChannelClosed) and error.code == NOT_FOUND and " no " in error.text:
        return f"{error}; twistd towerbus-worker makes what is missing: does it run on this bus, with this prefix?"
    if isinstance(error, exceptions.IncompatibleProtocolError):
        return "the connection was closed before a word of AMQP: is the port right, and is it TLS?"
    if _is_tls(error):
        return _words_of_tls(str(error) or type(error).__name__)
    return str(error) or type(error).__name__


def _words_of_tls(text: str) -> str:
    if "verify failed" in text or "Mismatch" in text:
        return f"TLS: the broker's certificate is not good ({text}); look at cacertfile and the host's name"
    if "alert" in text.lower():
        return f"TLS: the broker does not take ours ({text}); look at certfile and keyfile"
    return f"TLS: {text}; is TLS spoken on that port?"


def _is_tls(error: BaseException) -> bool:
    """Whether TLS failed for what is configured on one side, and not for the network."""
    if isinstance(error, ssl.SSLError):
        return not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    kind = type(error)
    # pyOpenSSL's and service-identity's, without importing them where nobody else has.
    return (kind.__module__, kind.__name__) == ("OpenSSL.SSL", "Error") or kind.__module__.startswith(
        "service_identity"
    )
