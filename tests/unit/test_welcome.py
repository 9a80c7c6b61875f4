"""The lines that a newcomer is told, for every kind of endpoint."""

import os
import shlex
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import pytest_twisted
import trustme
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory

from towerbus.welcome import Place, Welcome, lines, place

HTTP = Place("127.0.0.1:8052", "", False, False)
WEBSOCKET = Place("127.0.0.1:8051", "", False, False)


def told(websocket=WEBSOCKET, http=HTTP):
    return lines(websocket, http, "/websocket/", "TOKEN", "towerbus")


@pytest.fixture
def certificate(tmp_path):
    (tmp_path / "pems").mkdir()
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "pems/localhost.pem")
    )
    return tmp_path / "pems/localhost.pem"


async def listening(description):
    """The place and the address of a real listener."""
    port = await serverFromString(reactor, description).listen(Factory())
    address = port.getHost()
    found = place(description, address)
    await port.stopListening()
    return found, address


@pytest.mark.parametrize(
    ("description", "host", "proxied"),
    [
        ("tcp:0:interface=127.0.0.1", "127.0.0.1", False),
        ("tcp:0", "127.0.0.1", False),
        ("tcp6:0:interface=\\:\\:1", "[::1]", False),
        ("tcp6:0", "[::1]", False),
        ("haproxy:tcp:0:interface=127.0.0.1", "127.0.0.1", True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_tcp_is_reached_at_its_address_and_a_wildcard_at_the_loopback(description, host, proxied):
    found, address = await listening(description)
    assert found == Place(f"{host}:{address.port}", "", False, proxied)


# Twisted reads the certificates of tls: endpoints with what pyOpenSSL no longer likes.
@pytest.mark.filterwarnings("ignore:.* is deprecated. You should use cryptography:DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_tls_is_known(certificate):
    found, address = await listening(f"ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}")
    assert found == Place(f"127.0.0.1:{address.port}", "", True, False)
    found, address = await listening(f"tls:{certificate.parent}:0")
    assert found == Place(f"[::1]:{address.port}", "", True, False)
    found, address = await listening(f"haproxy:tls:{certificate.parent}:0")
    assert found == Place(f"[::1]:{address.port}", "", True, True)


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_known_by_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, _ = await listening("unix:http.sock")
    assert found == Place("", f"{tmp_path}/http.sock", False, False)


def test_a_link_local_address_goes_with_its_interface():
    name = socket.if_indextoname(1)
    assert place("tcp6:8051", IPv6Address("TCP", "fe80::1", 8051, 0, 1)).host == f"[fe80::1%25{name}]:8051"


def test_tcp_lines():
    assert told() == [
        "ws://127.0.0.1:8051/websocket/?token=TOKEN",
        "towerbus watch --url ws://127.0.0.1:8051/websocket/ --token TOKEN jobs:status_changed",
        """towerbus emit --url http://127.0.0.1:8052 --token TOKEN jobs status_changed '{"unified_job_id": 1, "status": "running"}'""",
    ]


def test_tls_lines_say_what_the_certificate_has_to_name():
    url, watch, emit, *notes = told(Place("[::1]:443", "", True, False), Place("127.0.0.1:8052", "", True, False))
    assert url == "wss://[::1]:443/websocket/?token=TOKEN"
    assert "--url 'wss://[::1]:443/websocket/'" in watch
    assert "--url https://127.0.0.1:8052 " in emit
    assert [note[:39] for note in notes] == [
        "# The certificate has to name 127.0.0.1",
        "# The certificate has to name [::1]; wh",
    ]


@pytest.mark.parametrize(
    ("path", "shown"), [("/run/a b", "/run/a b"), ("\0abstract", "@abstract"), ("/a\nb", "'/a\\nb'")]
)
def test_no_command_is_printed_that_cannot_reach_a_unix_socket(path, shown):
    at = Place("", path, False, False)
    where, watch, emit = told(at, at)
    assert where == f"# WebSocket: /websocket/?token=TOKEN on the Unix socket {shown}"
    assert watch.startswith("# towerbus watch can't use a Unix socket")
    option, *rest = shlex.split(emit)[1:]
    assert option == ("--abstract-unix-socket" if path[0] == "\0" else "--unix-socket")
    assert rest[0] == path.lstrip("\0")
    assert "http://localhost/emit" in rest


def test_no_command_is_printed_for_a_listener_behind_a_proxy():
    at = Place("127.0.0.1:8051", "", True, True)
    assert all(line.startswith("# ") for line in told(at, at))


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_any_path_is_one_word_of_the_command_and_one_line_of_a_comment(path):
    where, watch, emit = told(*[Place("", path, False, False)] * 2)
    assert shlex.split(emit)[2] == path
    assert len((where + watch).splitlines()) == 1


def welcome(tmp_path):
    # A path that is no UTF-8, as file systems allow.
    at = SimpleNamespace(description="unix:x", address=UNIXAddress(os.fsencode(tmp_path) + b"/\xff.sock"))
    return Welcome(at, at, "/websocket/", "")


def test_it_is_printed_past_the_log_whatever_the_path(tmp_path, capfdbinary):
    welcome(tmp_path).startService()
    printed = capfdbinary.readouterr().out
    assert printed.count(b"\n") == 3
    assert b"/\xff.sock" in printed
    assert b"Bearer TOKEN'" in printed


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "| true"])
def test_without_a_reader_there_is_nothing_to_print_and_nothing_breaks(redirection, tmp_path):
    program = (
        "import sys, time; sys.path[:0] = eval(sys.argv[1])\n"
        "from types import SimpleNamespace\n"
        "from twisted.internet.address import UNIXAddress\n"
        "from towerbus.welcome import Welcome\n"
        "at = SimpleNamespace(description='unix:x', address=UNIXAddress(b'/x'))\n"
        "class Told:\n"
        "    def write(self, text): sys.exit('told the log: ' + text)\n"
        "sys.stdout = Told()\n"
        "Welcome(at, at, '/', '').startService()\n"
        "sys.stderr.write('started')\n"
        "sys.stderr.flush()\n"
        "import os; os._exit(0)\n"
    )
    command = f"{shlex.join([sys.executable, '-c', program, repr(sys.path)])} {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.stderr == "started"
