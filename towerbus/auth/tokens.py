"""`tokens:FILE`: a table of tokens of which only the hashes are kept; and the one token of a run without `--auth`.

The file is TOML, one table for each token:

    [[token]]
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"   # printf %s "$TOKEN" | sha256sum
    user = 7                              # an integer or a text
    name = "ada"                          # optional, as are the rest
    subscribe = ["job_events/*"]
    emit = ["jobs/*"]
    expires = 2027-01-01T00:00:00Z        # or seconds since the epoch of Unix

A token must be long and random (`openssl rand -base64 33`): the hash of a guessable one can be guessed back. The file
is read again when it changes; one that can't be used leaves the tokens as they were, and is told of in the log.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import secrets
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from twisted.logger import Logger
from zope.interface import implementer

from towerbus.access import Grants, Identity
from towerbus.auth.identities import GivenGrants, Moment, Name, Pattern, UserText, digest
from towerbus.auth.interface import Credential, IAuthenticator, Kind, Refused, Told, Turnover
from towerbus.errors import ConfigError

_log = Logger()

CHECK_EVERY = 1.0
"""Seconds between looks at whether the file has changed."""
_NOTHINGS = {hashlib.sha256(nothing).digest() for nothing in (b"", b"\n")}
"""What comes of hashing a variable that is not set."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[token]]`."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]
    user: int | UserText
    name: Name = ""
    subscribe: tuple[Pattern, ...] = ()
    emit: tuple[Pattern, ...] = ()
    expires: Annotated[datetime.datetime, msgspec.Meta(tz=True)] | Moment | None = None

    def identity(self) -> Identity:
        """Whom the token belongs to."""
        expires = self.expires.timestamp() if isinstance(self.expires, datetime.datetime) else self.expires
        return Identity(self.user, self.name, GivenGrants(self.subscribe, self.emit).grants, expires)


@implementer(IAuthenticator)
class TokenFile:
    """The tokens of a file.

    Args:
        path: The file.
        seconds: Tells the time, for looking at the file again.
        now: Tells the seconds since the epoch of Unix.

    Raises:
        ConfigError: The file can't be used.
    """

    def __init__(self, path: str, seconds: Callable[[], float], *, now: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._seconds = seconds
        self._now = now
        self._mark = self._marked()
        self._looked = seconds()
        self._table = read(self._path)
        self._tell: Told = _nobody

    def tell(self, told: Told) -> None:
        """Tell of the identities whose tokens are gone, or have other entries, whenever the file was read again."""
        self._tell = told

    def authenticate(self, credential: Credential) -> Identity | None:
        """Look a token up.

        Raises:
            Refused: It has expired.
        """
        if credential.kind is not Kind.TOKEN:
            return None
        if self._seconds() - self._looked >= CHECK_EVERY:
            self._look()
        identity = self._table.get(digest(credential.secret))
        if identity is not None and identity.expires is not None and identity.expires <= self._now():
            raise Refused(f"the token of user {identity.user!r} in {self._path} has expired")
        return identity

    def reload(self) -> str:
        """Read the file again, whether or not it has changed. Returns what was read, in words.

        Raises:
            ConfigError: It can't be used; the tokens read before stay.
        """
        self._mark = self._marked()
        table, before = read(self._path), self._table
        # Who is as before stays the same object: by that connections are known.
        self._table = {key: before[key] if before.get(key) == new else new for key, new in table.items()}
        gone = [(old, self._table.get(key)) for key, old in before.items() if self._table.get(key) is not old]
        turnover = Turnover((old, _same_user(old, new)) for old, new in gone)
        if turnover:
            self._tell(turnover)
        return f"{len(self._table)} tokens from {self._path}"

    def _look(self) -> None:
        self._looked = self._seconds()
        if self._marked() == self._mark:
            return
        try:
            self.reload()
        except ConfigError as error:
            _log.warn("tokens_not_read: {reason}; the tokens read before stay", reason=str(error))
        else:
            _log.info("tokens_read: {count} from {path}", count=len(self._table), path=str(self._path))

    def _marked(self) -> tuple[int, ...]:
        """Changes when the file does."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return (found.st_mtime_ns, found.st_size, found.st_ino)


def _same_user(old: Identity, new: Identity | None) -> Identity | None:
    """What a token's entry became; another user's is nothing that a connection can become."""
    return new if new is not None and new.user == old.user else None


def _nobody(_: Turnover) -> None:
    """Nobody wants to know."""


def read(path: Path) -> dict[bytes, Identity]:
    """Read a file of tokens.

    Args:
        path: The file.

    Returns:
        The identities, by the digest of their tokens.

    Raises:
        ConfigError: The file is missing, is no TOML, or has an entry that is not right. It quotes nothing that might
            be a token.
    """
    where = f"--auth tokens:{path}"
    try:
        given = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{where}: can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: is no TOML: {_quietly(error)}") from None
    if set(given) != {"token"} or not isinstance(given["token"], list):
        raise ConfigError(f"{where}: got {sorted(given)} at the top, wanted [[token]] tables and nothing else")
    table: dict[bytes, Identity] = {}
    for number, item in enumerate(given["token"], 1):
        key, identity = _entry(item, f"{where}: entry {number}")
        if key in table:
            raise ConfigError(f"{where}: entry {number}: sha256 stands in an entry before it too")
        table[key] = identity
    return table


def _entry(item: Mapping[str, Any], where: str) -> tuple[bytes, Identity]:
    try:
        entry = msgspec.convert(item, _Entry)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
    key = bytes.fromhex(entry.sha256)
    if key in _NOTHINGS:
        raise ConfigError(f"{where}: sha256 is the hash of an empty text; wanted that of a token")
    return key, entry.identity()


def _quietly(error: ValueError) -> str:
    """Where a file is wrong, without a word of it."""
    return f"not UTF-8 at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)


@implementer(IAuthenticator)
class OneRunToken:
    """One token for everything, made anew by every process that has no `--auth`.

    Attributes:
        token: The token; it is shown to the one who started the process, and to no log.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        self._digest = digest(self.token)
        self._identity = Identity(1, "everything", Grants(("*",), ("*",)))

    def __repr__(self) -> str:
        return "<OneRunToken>"

    def authenticate(self, credential: Credential) -> Identity | None:
        """Compare in constant time."""
        same = credential.kind is Kind.TOKEN and hmac.compare_digest(digest(credential.secret), self._digest)
        return self._identity if same else None
