"""Endpoint strings: Twisted's own, and beside them what Twisted's lack.

tcp:8051:interface=127.0.0.1:reuseport=yes        several processes on one port; the kernel spreads the connections
ssl:8443:privateKey=KEY:certKey=CERTIFICATE       reloadable, as tls: is; reuseport=yes is understood here too
ssl:domain=INET:name=NAME:privateKey=KEY:certKey=CERTIFICATE      on a socket that systemd has made
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

if TYPE_CHECKING:
    from towerbus.certificates import Certificates

BACKLOG = 4096
"""Connections that may wait to be accepted: Twisted's own 50 is too few for a crowd that comes back."""
_PART = re.compile(r"((?:[^\\:]|\\.)*)(?::|$)", re.DOTALL)
_ALL = {"", "0.0.0.0", "::"}  # noqa: S104 - nothing is bound here
"""Interfaces that are all addresses."""
_YES, _NO = {"yes", "1", "true"}, {"no", "0", "false"}


class Words(NamedTuple):
    """An endpoint string in its parts.

    Attributes:
        kind: `tcp`, `ssl`, ...
        places: What stands without a name, after the kind.
        names: What stands with a name.
    """

    kind: str
    places: tuple[str, ...]
    names: dict[str, str]


def endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """Make an endpoint of its string.

    Raises:
        ConfigError: Certificate or key can't be used.
        ValueError: It is no endpoint string, as are the other errors that Twisted raises for that.
    """
    words = read(description)
    # Twisted's own tls: takes a directory of certificates, and does not see when one is exchanged.
    if words.kind == "ssl" or (words.kind == "tls" and "privateKey" in words.names):
        return _secured(reactor, words)
    if words.kind == "tcp":
        return _tcp(reactor, words)
    if words.kind == "unix" and "backlog" not in words.names:
        description += f":backlog={BACKLOG}"
    made: IStreamServerEndpoint = serverFromString(reactor, description)
    return made


def read(description: str) -> Words:
    r"""Read an endpoint string: parts between colons, `\` before a colon or an equals sign that is none."""
    parts = [match[1] for match in _PART.finditer(description)]
    if description and not description.endswith(":"):
        parts.pop()
    kind, *rest = parts or [""]
    places: list[str] = []
    names: dict[str, str] = {}
    for part in rest:
        name, equals, value = _divided(part)
        if equals:
            names[_plain(name)] = _plain(value)
        else:
            places.append(_plain(part))
    return Words(kind, tuple(places), names)


def is_shared(description: str) -> bool:
    """Whether an endpoint's socket is one of systemd's, at which other processes may accept too."""
    words = read(description)
    return words.kind == "systemd" or "domain" in words.names


def shared_port(one: str, other: str) -> str:
    """The TCP port that two endpoints both have, on the same address or on all; empty where they have none."""
    places = [_place(read(description)) for description in (one, other)]
    (port, interface), (second, elsewhere) = places
    overlap = interface == elsewhere or not _ALL.isdisjoint((interface, elsewhere))
    return port if port == second and port != "0" and overlap else ""


def _place(words: Words) -> tuple[str, str]:
    """The TCP port of an endpoint and its interface; empty where there is none."""
    if words.kind not in {"tcp", "ssl", "tls"} or "domain" in words.names:
        return "", ""
    port, interface, *_ = [*words.places, "", ""]
    return port or words.names.get("port", ""), interface or words.names.get("interface", "")


@implementer(IStreamServerEndpoint)
class SharedPort:
    """A TCP port that several processes listen on, each with a socket of its own (SO_REUSEPORT).

    Args:
        reactor: Takes the socket.
        port: The port; 0 for one of the system's choice.
        interface: The address; empty for all of IPv4.
        backlog: Connections that may wait to be accepted.
    """

    def __init__(self, reactor: Any, port: int, interface: str, backlog: int) -> None:
        self._reactor = reactor
        self._port, self._interface, self._backlog = port, interface, backlog

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803 - Twisted's name
        """Listen; fails with CannotListenError."""
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        family = socket.AF_INET6 if ":" in self._interface else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.setblocking(False)
            try:
                made.bind((self._interface, self._port))
                made.listen(self._backlog)
            except OSError as error:
                raise CannotListenError(self._interface, self._port, error) from error
            port: IListeningPort = self._reactor.adoptStreamPort(made.fileno(), family, factory)
            return port


@implementer(IStreamServerEndpoint)
class Secured:
    """TLS on another endpoint.

    Args:
        inner: Where it listens.
        certificates: What it shows.

    Attributes:
        certificates: As they were given.
    """

    def __init__(self, inner: IStreamServerEndpoint, certificates: Certificates) -> None:
        self._inner = inner
        self.certificates = certificates

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803 - Twisted's name
        """Listen; fails with what the inner one fails with."""
        # TLS is loaded where it is spoken.
        from twisted.protocols.tls import TLSMemoryBIOFactory

        shown: Any = self.certificates
        return self._inner.listen(TLSMemoryBIOFactory(shown, isClient=False, wrappedFactory=protocolFactory))


def _secured(reactor: Any, words: Words) -> Secured:
    names = dict(words.names)
    if "sslmethod" in names:
        raise ValueError("sslmethod is not understood: TLS 1.2 and later are spoken")
    key = names.pop("privateKey", None)
    if key is None:
        raise ValueError("privateKey=FILE is missing, and certKey=FILE, where the certificate is not in the same file")
    from towerbus.certificates import Certificates

    certificates = Certificates(
        key, names.pop("certKey", key), names.pop("extraCertChain", None), names.pop("dhParameters", None)
    )
    if "domain" in names:
        given = "".join(f":{name}={value}" for name, value in names.items())
        return Secured(serverFromString(reactor, f"systemd{given}"), certificates)
    return Secured(_tcp(reactor, Words("tcp", words.places, names)), certificates)


def _tcp(reactor: Any, words: Words) -> IStreamServerEndpoint:
    places, names = list(words.places), dict(words.names)
    given = {name: places.pop(0) if places else names.pop(name, "") for name in ("port", "interface")}
    port, interface = _number("port", given["port"], 65535), given["interface"]
    backlog = _number("backlog", names.pop("backlog", str(BACKLOG)), 2**31 - 1)
    shared = names.pop("reuseport", "no")
    if shared not in _YES | _NO:
        raise ValueError(f"reuseport={shared}: wanted yes or no")
    if unknown := [*names, *places]:
        raise ValueError(f"{', '.join(unknown)}: not understood here")
    if shared in _YES:
        return SharedPort(reactor, port, interface, backlog)
    escaped = interface.replace(":", "\\:")
    made: IStreamServerEndpoint = serverFromString(reactor, f"tcp:{port}:backlog={backlog}:interface={escaped}")
    return made


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= most):
        raise ValueError(f"{name}: got {text!r}, wanted a number from 0 to {most}")
    return int(text)


def _divided(part: str) -> tuple[str, str, str]:
    """Divide a part at its first equals sign that is one."""
    found = re.search(r"(?<!\\)=", part)
    return (part[: found.start()], "=", part[found.end() :]) if found else (part, "", "")


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
