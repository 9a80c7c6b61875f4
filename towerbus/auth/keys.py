"""Keys that verify and sign JWTs: HMAC secrets, PEM keys and JWKS (RFC 7517). A key's kind decides its algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from towerbus.errors import ConfigError

MIN_SECRET = 32
"""Bytes of an HMAC secret, at the least (RFC 7518 section 3.2)."""
MAX_SECRET = 4096
"""Bytes of an HMAC secret, at the most: more is some other file."""
MIN_RSA = 2048
"""Bits of an RSA key, at the least (RFC 7518 section 3.3)."""
MAX_FILE = 1024 * 1024
"""Bytes of a key file, at the most."""

_HMAC = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}
_WANTED = f"wanted an HMAC secret of {MIN_SECRET} bytes or more, a PEM public key or a JWKS"
_WANTED_TO_SIGN = f"wanted an HMAC secret of {MIN_SECRET} bytes or more, or a PEM private key"
_UNUSABLE = (PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm, RecursionError)


class KeyProblem(ValueError):
    """What is wrong with a key; the text quotes nothing of it."""


@dataclass(frozen=True, repr=False, slots=True)
class Key:
    """One key.

    Attributes:
        material: The secret's bytes, or the key of `cryptography`.
        algorithms: The algorithms that it may be used with.
        kid: Its name in a JWKS; None where it has none, and then it may verify any token.
    """

    material: Any
    algorithms: tuple[str, ...]
    kid: str | None = None


def verifying(path: str) -> tuple[Key, ...]:
    """Read the keys of `jwt:PATH`.

    Raises:
        ConfigError: The file can't be used; it names the file, what it got and what is wanted.
    """
    try:
        content = _content(path)
        if content.lstrip()[:1] == b"{":
            return jwks(content, secrets=True)
        if b"-----BEGIN" in content:
            return (_public(content),)
        return (Key(secret(content), _HMAC),)
    except KeyProblem as problem:
        raise ConfigError(f"--auth jwt:{path}: {problem}; {_WANTED}") from None


def signing(path: str) -> Key:
    """Read the key that `towerbus token --key` signs with.

    Raises:
        ConfigError: The file can't be used.
    """
    try:
        content = _content(path)
        if b"-----BEGIN" in content:
            return _private(content)
        if content.lstrip()[:1] == b"{":
            raise KeyProblem("got JSON")
        return Key(secret(content), _HMAC)
    except KeyProblem as problem:
        raise ConfigError(f"--key {path}: {problem}; {_WANTED_TO_SIGN}") from None


def secret(content: bytes) -> bytes:
    """An HMAC secret from a file's content: without the line's end where it is a text, else all of its bytes.

    Raises:
        KeyProblem: It is too short, too long, or a key of another kind.
    """
    text = content.rstrip(b"\r\n")
    found = text if text.isascii() and text.decode("ascii").isprintable() else content
    if not MIN_SECRET <= len(found) <= MAX_SECRET:
        raise KeyProblem(f"got {len(found)} bytes")
    try:
        # A public key taken for a secret would let everybody sign: PyJWT knows the forms that keys come in.
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(found)
    except PyJWTError:
        raise KeyProblem("got a key or certificate that is neither a secret nor PEM") from None


def jwks(content: bytes, *, secrets: bool) -> tuple[Key, ...]:
    """Read a JWKS, or a single JWK; keys for other ends, and of kinds that we don't know, are passed over.

    Args:
        content: The JSON.
        secrets: Whether HMAC secrets may stand in it: not in one that is published.

    Raises:
        KeyProblem: It is no JWKS, has no key of use, or has a private key.
    """
    try:
        given = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeyProblem("got { at its beginning, but no JSON") from None
    items = given.get("keys", [given]) if isinstance(given, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise KeyProblem('got JSON without a list of keys in "keys"')
    passed_over: list[str] = []
    keys = tuple(key for item in items if (key := _usable(item, passed_over, secrets=secrets)) is not None)
    if not keys:
        raise KeyProblem(f"got a JWKS without a key that can be used ({'; '.join(passed_over) or 'it is empty'})")
    return keys


def _usable(item: Mapping[str, Any], passed_over: list[str], *, secrets: bool) -> Key | None:
    try:
        return _jwk(item, secrets=secrets)
    except KeyProblem as problem:
        if "d" in item:
            raise
        passed_over.append(str(problem))
        return None


def _jwk(item: Mapping[str, Any], *, secrets: bool) -> Key:
    kind, kid, use = item.get("kty"), item.get("kid"), item.get("use", "sig")
    if "d" in item:
        raise KeyProblem("got a private key among the keys")
    if use != "sig":
        raise KeyProblem("a key that is not for signatures")
    kid = kid if isinstance(kid, str) else None
    readers: dict[object, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}
    try:
        if kind == "oct" and secrets:
            material: Any = secret(HMACAlgorithm.from_jwk(dict(item)))
            return Key(material, _of_the_key(_HMAC, item), kid)
        material = readers[str(kind)].from_jwk(dict(item))
    except KeyProblem:
        raise
    except _UNUSABLE:
        raise KeyProblem("a key of a kind that can't be used, or broken") from None
    return Key(material, _of_the_key(_algorithms(material), item), kid)


def _of_the_key(algorithms: tuple[str, ...], item: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the algorithms of the kind, the one that the key itself is for, where it says so (RFC 7517 section 4.4)."""
    named = item.get("alg")
    if named is None:
        return algorithms
    if named not in algorithms:
        raise KeyProblem("a key for an algorithm that is not of its kind")
    return (named,)


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise KeyProblem(f"can't be read: {error.strerror}") from None
    except ValueError:
        raise KeyProblem("is no path") from None
    if not content.strip():
        raise KeyProblem("got an empty file")
    if len(content) > MAX_FILE:
        raise KeyProblem(f"got more than {MAX_FILE} bytes")
    return content


def _public(content: bytes) -> Key:
    if b"PRIVATE KEY-----" in content:
        raise KeyProblem("got a private key, which a server must not have (openssl pkey -in FILE -pubout)")
    if b"-----BEGIN CERTIFICATE" in content:
        raise KeyProblem("got a certificate (openssl x509 -in FILE -noout -pubkey)")
    try:
        material = load_pem_public_key(content)
    except _UNUSABLE:
        raise KeyProblem("got PEM that holds no public key, or a broken one") from None
    return Key(material, _algorithms(material))


def _private(content: bytes) -> Key:
    if b"PRIVATE KEY-----" not in content:
        raise KeyProblem("got PEM that holds no private key: a public one can't sign")
    try:
        material: Any = load_pem_private_key(content, None)
    except TypeError:
        raise KeyProblem("got a private key with a passphrase") from None
    except _UNUSABLE:
        raise KeyProblem("got PEM that holds a broken private key") from None
    return Key(material, _algorithms(material.public_key()))


def _algorithms(key: Any) -> tuple[str, ...]:
    """The algorithms that a public key may be used with."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA:
            raise KeyProblem(f"got an RSA key of {key.key_size} bits, which is less than {MIN_RSA}")
        return _RSA
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return (_CURVES[key.curve.name],)
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return ("EdDSA",)
    raise KeyProblem("got a key of a kind that JWTs can't be verified with")
