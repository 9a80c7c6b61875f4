"""`jwt:PATH` and `jwt:URL`: tokens that carry their identity, signed (RFC 7519).

Claims: `sub` (the user; digits become an integer), `name`, `exp`, `nbf`, `aud` (where it is there it must name
`towerbus`), and `towerbus` for the grants, `{"subscribe": ["job_events/42"], "emit": ["jobs/*"]}`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from jwt.algorithms import HMACAlgorithm, get_default_algorithms
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from towerbus.access import Identity
from towerbus.auth.identities import GRANT, PATTERN, GivenGrants, Moment, Name, UserText, digest, user_id
from towerbus.auth.interface import Credential, IAuthenticator, Kind, Refused
from towerbus.auth.jwks import FileKeys, Keys, KeysAtUrl
from towerbus.auth.keys import Key, signing
from towerbus.auth.recent import Recent
from towerbus.errors import ConfigError

_log = Logger()

AUDIENCE = "towerbus"
"""Our name in the `aud` claim."""
REMEMBERED = 10_000
"""Verified tokens that are remembered, at the most."""
MAX_TOKEN = 128 * 1024
"""Characters of a token, at the most."""
_PARTS = 3
_FORGED = (PyJWTError, ValueError, TypeError, RecursionError)


class _Claims(msgspec.Struct, frozen=True):
    """The claims that count."""

    sub: UserText | int
    name: Name = ""
    exp: Moment | None = None
    nbf: Moment | None = None
    aud: str | tuple[str, ...] | None = None
    towerbus: GivenGrants = GivenGrants()


class _Hmac(HMACAlgorithm):
    """PyJWT's, without the examination of the secret at each token: `keys.secret` did it once."""

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes)  # noqa: S101 - ours, from keys.secret
        return key

    def check_key_length(self, key: bytes) -> None:
        """All that `keys.secret` accepts will do."""


def _verifier() -> PyJWS:
    jws = PyJWS()
    for name, algorithm in get_default_algorithms().items():
        if isinstance(algorithm, HMACAlgorithm):
            jws.unregister_algorithm(name)
            jws.register_algorithm(name, _Hmac(algorithm.hash_alg))
    return jws


_jws = _verifier()


@implementer(IAuthenticator)
class JwtAuthenticator:
    """Verifies JWTs, and remembers those that it has verified, by their digest.

    Args:
        keys: Where the keys come from.
        now: Tells the seconds since the epoch of Unix.
    """

    def __init__(self, keys: Keys, now: Callable[[], float] = time.time) -> None:
        self._source = keys
        self._keys: tuple[Key, ...] = ()
        self._now = now
        self._known: Recent[bytes, Identity] = Recent(REMEMBERED, now)

    def authenticate(self, credential: Credential) -> Identity | Deferred[Identity | None] | None:
        """Judge a token: None where it is no JWT, or none that our keys have signed.

        Raises:
            Refused: The signature is good, and the token is not: it has expired, or its claims are not right.
            NotNow: No key could be fetched.
        """
        token = credential.secret
        if credential.kind is not Kind.TOKEN or token.count(".") != _PARTS - 1:
            return None
        keys = self._source.current()
        if keys is not self._keys:
            self._keys = keys
            self._known.clear()
        key = digest(token)
        return self._known.get(key) or self._judged(token, key)

    def reload(self) -> str:
        """Look for the keys again. Returns what was done, in words.

        Raises:
            ConfigError: They can't be used; those known stay.
        """
        return self._source.reload()

    async def close(self) -> None:
        """Let go of the connections to where the keys are."""
        await self._source.close()

    def _judged(self, token: str, key: bytes) -> Identity | Deferred[Identity | None] | None:
        kid = _kid(token)
        if kid is _NO_JWT:
            return None
        identity = self._verified(token, key, kid)
        if identity is not None or any(known.kid == kid for known in self._source.current() if kid is not None):
            return identity
        fetch = self._source.more()
        if fetch is None:
            return None
        return fetch.addCallback(lambda _: self._verified(token, key, kid))

    def _verified(self, token: str, key: bytes, kid: Any) -> Identity | None:
        for candidate in self._source.current():
            if kid is None or candidate.kid is None or candidate.kid == kid:
                payload = _payload(token, candidate)
                if payload is not None:
                    identity = _identity(payload, self._now())
                    until = math.inf if identity.expires is None else identity.expires
                    self._known.put(key, identity, until)
                    return identity
        return None


def jwt(where: str, reactor: Any, *, now: Callable[[], float] = time.time, clock: Any = None) -> JwtAuthenticator:
    """Make the plugin of `jwt:PATH` or `jwt:URL`.

    Args:
        where: The path of a key file, or the URL of a JWKS.
        reactor: Connects.
        now: Tells the seconds since the epoch of Unix.
        clock: Keeps the intervals between fetches; the reactor where it is None.

    Raises:
        ConfigError: The file or the URL can't be used.
    """
    if where.startswith(("http://", "https://")):
        return JwtAuthenticator(KeysAtUrl(where, reactor, clock=clock), now)
    return JwtAuthenticator(FileKeys(where), now)


def mint(
    key_path: str,
    *,
    user: int | str,
    name: str = "",
    subscribe: Sequence[str] = (),
    emit: Sequence[str] = (),
    expires_in: float | None = None,
    now: Callable[[], float] = time.time,
) -> str:
    """Make a token: `towerbus token`.

    Args:
        key_path: A file with an HMAC secret or a PEM private key.
        user: The user's id; digits become an integer when the token is read.
        name: What a person would call the user.
        subscribe: Grants to subscribe, as `group/type`.
        emit: Grants to emit.
        expires_in: Seconds until it ends; None for never.
        now: Tells the seconds since the epoch of Unix.

    Raises:
        ConfigError: The key can't sign, or the rest makes no token that could be used.
    """
    key = signing(key_path)
    if expires_in is not None and not 0 < expires_in < math.inf:
        raise ConfigError(f"--expires: got {expires_in:g}, wanted seconds, more than 0")
    claims: dict[str, Any] = {"sub": str(user), "iat": int(now())}
    if name:
        claims["name"] = name
    if expires_in is not None:
        claims["exp"] = math.ceil(now() + expires_in)
    for option, patterns in (("--subscribe", subscribe), ("--emit", emit)):
        for pattern in patterns:
            if not re.fullmatch(PATTERN, pattern):
                raise ConfigError(f"{option}: got {pattern!r}, wanted {GRANT}")
    if subscribe or emit:
        claims["towerbus"] = {"subscribe": list(subscribe), "emit": list(emit)}
    try:
        msgspec.convert(claims, _Claims)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the token's claims are not right: {error}") from None
    return _jws.encode(msgspec.json.encode(claims), key.material, algorithm=key.algorithms[0])


_NO_JWT = object()


def _kid(token: str) -> Any:
    """The key that the token names, None where it names none, and `_NO_JWT` where it is no JWT."""
    if len(token) > MAX_TOKEN:
        return _NO_JWT
    try:
        return _jws.get_unverified_header(token).get("kid")
    except _FORGED:
        return _NO_JWT


def _payload(token: str, key: Key) -> bytes | None:
    """The claims, where the key has signed them."""
    try:
        payload: bytes = _jws.decode_complete(token, key.material, algorithms=key.algorithms)["payload"]
    except _FORGED as error:
        _log.debug("jwt_not_verified: {reason}", reason=type(error).__name__)
        return None
    return payload


def _identity(payload: bytes, now: float) -> Identity:
    """Read the claims of a token whose signature is good."""
    try:
        claims = msgspec.json.decode(payload, type=_Claims)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"the token's claims are not right: {error}") from None
    who = f"the token of {claims.sub!r}"
    if claims.exp is not None and claims.exp <= now:
        raise Refused(f"{who} expired {now - claims.exp:.0f} s ago")
    if claims.nbf is not None and claims.nbf > now:
        raise Refused(f"{who} is good only in {claims.nbf - now:.0f} s (nbf)")
    audience = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
    if audience is not None and AUDIENCE not in audience:
        raise Refused(f"{who} is for another audience: its aud does not name {AUDIENCE}")
    return Identity(user_id(claims.sub), claims.name, claims.towerbus.grants, claims.exp)
