"""What `make dev` makes in its directory: a key for tokens, a certificate for nginx, nginx's files."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

VALID = datetime.timedelta(days=3650)


def key(path: Path) -> Path:
    """The file with the key that signs tokens; it is made once, so that tokens outlive restarts."""
    if not path.exists():
        _write(path, secrets.token_urlsafe(48).encode())
    return path


def certificate(directory: Path) -> None:
    """A certificate for localhost that has signed itself, and its key; made once, so that a browser asks once."""
    if (directory / "certificate.pem").exists():
        return
    signer = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "towerbus development")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(signer.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(signer, SHA256())
    )
    _write(directory / "key.pem", signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(directory / "certificate.pem", made.public_bytes(Encoding.PEM))


def bridges(directory: Path) -> Path:
    """A file with a bridge that takes events on a Unix socket, `emit.sock` beside it; made anew each time."""
    path = directory / "bridges.toml"
    socket = str(directory / "emit.sock").replace("\\", r"\\").replace(":", r"\:")
    listen = json.dumps(f"unix:{socket}:mode=600")
    path.write_text(f'[[bridge]]\nname = "emit"\n[bridge.source]\nkind = "http"\nlisten = {listen}\n', encoding="utf-8")
    return path


def nginx(shipped: Path, directory: Path, ports: Mapping[int, int]) -> None:
    """Copy nginx's files, with other ports.

    Args:
        shipped: Where they are.
        directory: Where to.
        ports: Which stands in the place of which.
    """
    shutil.copytree(shipped, directory, dirs_exist_ok=True)
    for path in directory.rglob("*.conf"):
        text = re.sub(
            r"(?<=127\.0\.0\.1:)\d+",
            lambda found: str(ports.get(int(found[0]), found[0])),
            path.read_text(encoding="utf-8"),
        )
        path.write_text(text, encoding="utf-8")
    certificate(directory)


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
