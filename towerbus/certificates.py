"""A server's certificate and key, from files that may be replaced while it runs.

Connections keep the certificate with which they began; those that come after a reload get the new one. TLS 1.2 and
later are spoken (RFC 8996).
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL.crypto import X509, PKey
from OpenSSL.crypto import Error as CryptoError
from OpenSSL.SSL import Connection
from OpenSSL.SSL import Error as SSLError
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, DiffieHellmanParameters, TLSVersion
from twisted.logger import Logger
from twisted.python.filepath import FilePath
from zope.interface import implementer

from towerbus.errors import ConfigError

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_UNUSABLE = (CryptoError, SSLError, ValueError, TypeError, UnsupportedAlgorithm)
_log = Logger()


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """What a TLS listener shows. Twisted asks it for each connection, which so has the newest.

    Args:
        private_key: The file with the private key, in PEM.
        certificate: The file with the certificate, in PEM; those of its authorities may follow it.
        chain: A file with certificates of authorities; None where there is none.
        dh_parameters: A file with parameters for Diffie-Hellman; None for elliptic curves only.

    Attributes:
        expires: When the certificate ends, in seconds since the epoch of Unix.

    Raises:
        ConfigError: A file is missing or wrong, or the key is another certificate's. No key is quoted.
    """

    def __init__(
        self, private_key: str, certificate: str, chain: str | None = None, dh_parameters: str | None = None
    ) -> None:
        self._key, self._certificate = Path(private_key), Path(certificate)
        self._chain = Path(chain) if chain else None
        self._dh = Path(dh_parameters) if dh_parameters else None
        self.expires = 0.0
        self._mark: tuple[object, ...] = ()
        self._context: Any = None
        self.reload()

    def serverConnectionForTLS(self, tlsProtocol: object) -> Connection:  # noqa: ARG002, N802, N803 - Twisted's
        """The next connection's side of TLS."""
        return Connection(self._context, None)

    def has_changed(self) -> bool:
        """Whether a file is another one than when they were read last, whether or not they could be used."""
        return self._marked() != self._mark

    def reload(self) -> str:
        """Read the files again. Where they can't be used, what was read before stays.

        Returns:
            What was read, in words.

        Raises:
            ConfigError: They can't be used.
        """
        self._mark = self._marked()
        found = self._certificates(self._certificate)
        if self._chain is not None:
            found += self._certificates(self._chain)
        leaf = found[0]
        options = CertificateOptions(
            privateKey=PKey.from_cryptography_key(self._private_key()),
            certificate=X509.from_cryptography(leaf),
            extraCertChain=[X509.from_cryptography(each) for each in found[1:]],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            dhParameters=self._parameters(),
        )
        try:
            context = options.getContext()
        except _UNUSABLE as error:
            raise ConfigError(f"{self._key}: is not the key of the certificate in {self._certificate}") from error
        self._context = context
        self.expires = leaf.not_valid_after_utc.timestamp()
        self._look_at_dates(leaf)
        return f"the certificate {self._certificate}, good until {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"

    def _look_at_dates(self, leaf: x509.Certificate) -> None:
        now = time.time()
        if self.expires <= now or leaf.not_valid_before_utc.timestamp() > now:
            _log.error(
                "certificate_not_valid: {path} is good from {begin} until {end}: clients that check it stay away",
                path=str(self._certificate),
                begin=leaf.not_valid_before_utc.isoformat(),
                end=leaf.not_valid_after_utc.isoformat(),
            )

    def _private_key(self) -> Any:
        try:
            return load_pem_private_key(_content(self._key), None)
        except _UNUSABLE as error:
            reason = "it is encrypted" if isinstance(error, TypeError) else "it holds none"
            raise ConfigError(f"{self._key}: wanted a private key in PEM, without a password: {reason}") from None

    def _certificates(self, path: Path) -> list[x509.Certificate]:
        blocks = _BLOCK.findall(_content(path))
        if not blocks:
            raise ConfigError(f"{path}: wanted a certificate in PEM: it holds none")
        try:
            return [x509.load_pem_x509_certificate(block) for block in blocks]
        except _UNUSABLE as error:
            raise ConfigError(f"{path}: a certificate in it can't be read: {error}") from error

    def _parameters(self) -> Any:
        if self._dh is None:
            return None
        _content(self._dh)
        return DiffieHellmanParameters.fromFile(FilePath(str(self._dh)))

    def _marked(self) -> tuple[object, ...]:
        paths = (path for path in (self._key, self._certificate, self._chain, self._dh) if path is not None)
        return tuple(_mark(path) for path in paths)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None


def _mark(path: Path) -> tuple[int, ...]:
    """Changes when the file does."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
