"""The seam between a server and those who know its users."""

from __future__ import annotations

import enum

import msgspec
from twisted.internet.defer import Deferred
from zope.interface import Interface

from towerbus.access import Identity
from towerbus.errors import TowerbusError
from towerbus.topics import Topic


class Kind(enum.Enum):
    """How a client showed who it is."""

    TOKEN = "token"  # noqa: S105 - a word, not a secret
    SESSION = "session"


class Credential(msgspec.Struct, frozen=True):
    """What a client showed at connect. Its text never holds the secret.

    Attributes:
        kind: A token, or the cookie of a session of the application's.
        secret: The token; for a session the value of its cookie.
        cookie: For a session, the whole `Cookie` header, for forwarding.
        csrf: For a session, the `csrftoken` cookie, which each message has to echo; None where there was none.
        address: The client's address, for `X-Forwarded-For`.
    """

    kind: Kind
    secret: str
    cookie: str = ""
    csrf: str | None = None
    address: str = ""

    def __repr__(self) -> str:
        return f"<Credential {self.kind.value}>"


class Refused(TowerbusError):
    """The credential is not good; the text is for the log and never quotes it."""


class NotNow(TowerbusError):
    """The credential can't be judged now; the client is told to come back, and not let in."""


class IAuthenticator(Interface):
    """One `--auth` plugin, or a chain of them."""

    def authenticate(credential: Credential) -> Identity | Deferred[Identity | None] | None:
        """Judge a credential.

        Returns:
            The identity, or None where this plugin does not know the credential, so that the next is asked. A plugin
            that knows the answer returns it; one that must ask returns a Deferred. It raises or fails with `Refused`
            for a credential that is of its own making but is no good (expired), and with `NotNow`.
        """


class IAccessOracle(Interface):
    """The application, asked about single topics (`who = "ask"`)."""

    def allowed(identity: Identity, topics: frozenset[Topic]) -> Deferred[frozenset[Topic]]:
        """Ask which of the topics the identity may see; none, where there is no answer in time."""
