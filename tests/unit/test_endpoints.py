"""Endpoint strings, and several listeners on one port."""

import socket

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from support.certificates import Certificates as Files
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, quoteStringArgument
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory

from towerbus.certificates import Certificates
from towerbus.endpoints import Words, endpoint, read, shared_port
from towerbus.errors import ConfigError
from towerbus.listening import Listener


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp:80", Words("tcp", ("80",), {})),
        ("tcp:80:interface=127.0.0.1", Words("tcp", ("80",), {"interface": "127.0.0.1"})),
        (r"tcp:80:interface=\:\:1", Words("tcp", ("80",), {"interface": "::1"})),
        (r"ssl:1:privateKey=/a\:b=c", Words("ssl", ("1",), {"privateKey": "/a:b=c"})),
        (r"ssl:1:a\=b", Words("ssl", ("1", "a=b"), {})),
        ("", Words("", (), {})),
        ("tcp", Words("tcp", (), {})),
    ],
)
def test_words(text, words):
    assert read(text) == words


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_what_twisted_quotes_is_read_back(values):
    text = ":".join(["ssl", *(f"k{at}={quoteStringArgument(value)}" for at, value in enumerate(values))])
    assert list(read(text).names.values()) == values


@given(st.text())
def test_anything_can_be_read(text):
    assert isinstance(read(text), Words)


@pytest_twisted.ensureDeferred
async def test_several_listen_on_one_port_and_each_gets_its_share():
    counts = [0, 0, 0]

    def counting(at):
        class Counted(Protocol):
            def connectionMade(self):
                counts[at] += 1

        return Factory.forProtocol(Counted)

    first = await endpoint(reactor, "tcp:0:interface=127.0.0.1:reuseport=yes").listen(counting(0))
    number = first.getHost().port
    others = [
        await endpoint(reactor, f"tcp:{number}:interface=127.0.0.1:reuseport=yes").listen(counting(at)) for at in (1, 2)
    ]
    for _ in range(90):
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", number), Protocol())
        client.transport.abortConnection()
    assert sum(counts) >= 89
    assert min(counts) >= 10, counts
    with pytest.raises(CannotListenError):
        await endpoint(reactor, f"tcp:{number}:interface=127.0.0.1").listen(counting(0))
    for port in (first, *others):
        await port.stopListening()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tcp:0:reuseport=maybe", "reuseport=maybe: wanted yes or no"),
        ("tcp:0:reuseport=yes:colour=red", "colour"),
        ("ssl:0", "privateKey=FILE is missing"),
        ("ssl:0:privateKey=x:sslmethod=TLSv1_METHOD", "TLS 1.2"),
        ("ssl:0:privateKey=/no/where.pem", "/no/where.pem: can't be read"),
        ("systemd:domain=INET:name=nobody", "nobody"),
        ("tcp:x", "port: got 'x', wanted a number from 0 to 65535"),
        ("tcp:99999", "port: got '99999'"),
        ("tcp", "port: got ''"),
        ("tcp:0:backlog=many", "backlog: got 'many'"),
        ("tcp:0:interfce=127.0.0.1", "interfce: not understood here"),
        ("ssl:x:privateKey=/no/where.pem", "/no/where.pem"),
    ],
)
def test_a_mistake_is_named(text, says):
    with pytest.raises(ConfigError) as caught:
        Listener(reactor, text, Factory(), "--listen")
    assert "--listen" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "port"),
    [
        ("tcp:80", "tcp:80:interface=127.0.0.1", "80"),
        ("tcp:80:interface=127.0.0.1:reuseport=yes", "ssl:port=80:interface=127.0.0.1:privateKey=x", "80"),
        ("tcp:80:interface=127.0.0.1", "tcp:80:interface=0.0.0.0", "80"),
        (r"tcp:80:interface=\:\:", "tcp:80:interface=127.0.0.1", "80"),
        ("tcp:80:interface=127.0.0.1", "tcp:80:interface=127.0.0.2", ""),
        ("tcp:80", "tcp:81", ""),
        ("tcp:0", "tcp:0", ""),
        ("unix:/run/x", "unix:/run/x", ""),
        ("systemd:domain=INET:index=0", "tcp:80", ""),
    ],
)
def test_a_port_that_two_have(one, other, port):
    assert shared_port(one, other) == port


@pytest_twisted.ensureDeferred
async def test_an_interface_may_stand_without_its_name():
    port = await endpoint(reactor, "tcp:0:127.0.0.1").listen(Factory())
    assert port.getHost().host == "127.0.0.1"
    await port.stopListening()


def shown(made):
    return made.serverConnectionForTLS(None).get_context()


def test_certificates_are_what_the_newest_twisted_takes_without_a_warning(tmp_path, recwarn):
    key, chain = Files(tmp_path).issue("localhost")
    TLSMemoryBIOFactory(Certificates(str(key), str(chain)), isClient=False, wrappedFactory=Factory())
    assert "LegacyContextFactoryWarning" not in [each.category.__name__ for each in recwarn]


def test_a_certificate_may_be_followed_by_its_authorities(tmp_path):
    files = Files(tmp_path)
    key, chain = files.issue("localhost")
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + chain.read_bytes() + files.authority.read_bytes())
    made = Certificates(str(both), str(both))
    assert made.expires > 0
    before = shown(made)
    both.write_text("nothing")
    assert made.has_changed()
    with pytest.raises(ConfigError, match="both.pem"):
        made.reload()
    assert not made.has_changed(), "it is not tried again before it changes again"
    assert shown(made) is before


@pytest_twisted.ensureDeferred
async def test_a_crowd_finds_room_at_a_unix_socket(tmp_path):
    """A producer with a timeout, as curl is one, is not made to wait where there is none: it fails at once."""
    port = await endpoint(reactor, f"unix:{tmp_path / 'emit.sock'}:mode=660").listen(Factory.forProtocol(Protocol))
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(200)]
    try:
        for each in crowd:
            each.setblocking(False)
            each.connect(str(tmp_path / "emit.sock"))
    finally:
        for each in crowd:
            each.close()
        await port.stopListening()
