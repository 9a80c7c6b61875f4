"""The seam between a server and those who know its users."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

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


class Turnover:
    """What became of identities that were given out, after what a plugin knows has changed.

    Args:
        pairs: The identities as they were given out, and as they are now; None for one that is no more.
    """

    def __init__(self, pairs: Iterable[tuple[Identity, Identity | None]]) -> None:
        # By object: that of another token, or of another plugin, may be equal. The old ones are held, so that no number
        # of theirs is another's.
        self._pairs = {id(old): (old, new) for old, new in pairs}

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def now(self, identity: Identity) -> Identity | None:
        """What an identity is now: the same one, where nothing became of it."""
        return self._pairs.get(id(identity), (identity, identity))[1]


Told = Callable[[Turnover], None]
"""Is told of a turnover. An authenticator that has any takes it with a method `tell`."""


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
