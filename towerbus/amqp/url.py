"""The bus's URL, `amqp://user:password@host:port/vhost?prefix=towerbus`: where the broker is, and which objects.

The form is RabbitMQ's own (its pages "URI Specification" and "URI Query Parameters"), with `prefix` added. Pure.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from towerbus.errors import ConfigError
from towerbus.urls import ESCAPES, shown

PORT, TLS_PORT = 5672, 5671
_WANTED = "wanted is amqp://USER:PASSWORD@HOST/VHOST or amqps://..."
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_FILES = ("cacertfile", "certfile", "keyfile")
_MAX_HEARTBEAT = 600
EMBEDDED = ": memory: and sqlite: belong to the one process of twistd towerbus, which needs no other"
"""What the separate commands say to whom gives them an embedded log."""


class Broker(msgspec.Struct, frozen=True):
    """Where the broker is, and how to log in. Its text never holds the password.

    Attributes:
        host: A name or an address.
        port: Its port.
        vhost: The virtual host.
        user: The user's name.
        password: The user's password.
        tls: Whether to speak TLS; the certificate must then be good for `host`.
        prefix: Before the names of all objects: several installations may share a broker.
        heartbeat: Seconds; a broker that is silent for two and a half times as long is given up.
        cacertfile: PEM file with the authorities to trust; the system's where it is empty.
        certfile: PEM file with our certificate and its chain; empty for none.
        keyfile: PEM file with its key; empty where it is in `certfile`.
    """

    host: str
    port: int
    vhost: str = "/"
    user: str = "guest"
    password: str = "guest"  # noqa: S105 - RabbitMQ's own default
    tls: bool = False
    prefix: str = "towerbus"
    heartbeat: int = 5
    cacertfile: str = ""
    certfile: str = ""
    keyfile: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'amqps' if self.tls else 'amqp'}://{self.user}@{host}:{self.port}/{self.vhost} (prefix {self.prefix})"

    def __repr__(self) -> str:
        return f"<Broker {self}>"


def parse(url: str) -> Broker:
    """Read the URL.

    Raises:
        ConfigError: It is not one; the text names what is wrong, and never quotes a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Python's words may hold a part of a password.
        raise ConfigError(f"the host or the port is not right ({ESCAPES}); {_WANTED}") from None
    if parts.scheme not in {"amqp", "amqps"}:
        raise ConfigError(f"scheme {parts.scheme!r} is not amqp or amqps; {_WANTED}")
    tls = parts.scheme == "amqps"
    if parts.fragment or parts.path.count("/") > 1:
        raise ConfigError(f"a / in the virtual host must be written %2F, a # in the password %23; {_WANTED}")
    vhost = unquote(parts.path[1:]) if len(parts.path) > 1 else "/"
    return Broker(
        host=parts.hostname or "localhost",
        port=port or (TLS_PORT if tls else PORT),
        vhost=vhost,
        user=unquote(parts.username or "guest"),
        password=unquote("guest" if parts.password is None else parts.password),
        tls=tls,
        **_query(parts.query, tls=tls),
    )


def of_bus(bus: str) -> Broker:
    """Read the option `--bus` of a command that needs a broker.

    Args:
        bus: What was given.

    Raises:
        ConfigError: It is another kind of bus, or not right.
    """
    if not bus.startswith(("amqp:", "amqps:")):
        why = EMBEDDED if bus.startswith(("memory:", "sqlite:")) else ""
        raise ConfigError(f"--bus: got {shown(bus)}, wanted amqp://USER:PASSWORD@HOST/VHOST or amqps://...{why}")
    try:
        return parse(bus)
    except ConfigError as error:
        raise ConfigError(f"--bus: {error}") from error


def _query(text: str, *, tls: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    pairs = parse_qsl(text, keep_blank_values=True)
    if any("@" in key or ("@" in value and key not in _FILES) for key, value in pairs):
        # Nothing of it is quoted: it may be a part of the password.
        raise ConfigError(f"a ? in the password must be written %3F; {_WANTED}")
    for key, value in pairs:
        if key == "prefix":
            if not _PREFIX.fullmatch(value):
                raise ConfigError(f"prefix={value[:40]}: wanted are up to 100 letters, digits, '_', '-' and '.'")
            found[key] = value
        elif key == "heartbeat":
            if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= _MAX_HEARTBEAT:
                raise ConfigError(f"heartbeat={value[:40]}: wanted is a number of seconds from 1 to {_MAX_HEARTBEAT}")
            found[key] = int(value)
        elif key in _FILES:
            found[key] = _file(key, value, tls=tls)
        else:
            raise ConfigError(f"there is no parameter {key[:40]!r}; there are prefix, heartbeat, {', '.join(_FILES)}")
    if "keyfile" in found and "certfile" not in found:
        raise ConfigError("keyfile is given without certfile: wanted are both, or certfile alone with the key in it")
    return found


def _file(key: str, value: str, *, tls: bool) -> str:
    if not tls:
        raise ConfigError(f"{key} is for amqps:// only")
    try:
        Path(value).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}={value}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    return value
