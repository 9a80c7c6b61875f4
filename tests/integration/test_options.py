"""Each option of etc/towerbus.toml, changed in a copy of that file: what it is for is seen."""

import contextlib
import http.server
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pika
import pytest
from support.ports import Ports
from support.running import running_towerbus, start, wait_for
from support.server import running_server, token
from support.worker import LogText, running_worker
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from towerbus.options import OPTIONS

pytestmark = pytest.mark.long

SAMPLE = Path(__file__).parents[2] / "etc" / "towerbus.toml"
EFFECTS = {
    "drain": "tests/wire/test_drain.py",
    "bridge_http": "tests/support/bridge.py, by whose port every bridge is asked",
    "bridge_state": "tests/integration/test_bridge_http.py",
}
"""The tests that see an option's effect. One of another module is put in here by its name."""


def effect(*keys):
    def register(test):
        EFFECTS.update(dict.fromkeys(keys, test.__name__))
        return test

    return register


def changed(directory, **changes):
    """The sample with other values, as an option for a command."""
    # The bridges' tables have keys of the same names.
    text, bridges, tables = SAMPLE.read_text().partition("# [[bridge]]\n")
    for key, value in changes.items():
        text, count = re.subn(
            rf"^(# )?{key} = .*$",
            lambda _, key=key, value=value: f"{key} = {json.dumps(value)}",
            text,
            flags=re.MULTILINE,
        )
        assert count == 1, key
    path = directory / "changed.toml"
    path.write_text(text + bridges + tables)
    return ["--config", str(path)]


@contextlib.contextmanager
def running(directory, **changes):
    with running_towerbus(directory, *changed(directory, **changes)) as bus:
        yield bus


def client(bus, credential=None, path=None, **more):
    address = re.sub(r"\?.*", f"?token={credential or bus.token}", bus.ws_url)
    return connect(
        address if path is None else address.replace("/websocket/", path), open_timeout=20, close_timeout=1, **more
    )


def subscribed(websocket, groups=None):
    assert json.loads(websocket.recv(20))["accept"] is True
    websocket.send(json.dumps({"groups": groups or {"jobs": ["x"]}}))
    return websocket.recv(20)


def emit(bus, *sizes, credential=None):
    """Emit events of so many bytes; the status."""
    body = json.dumps([{"group": "jobs", "type": "x", "payload": {"text": "x" * size}} for size in sizes]).encode()
    request = urllib.request.Request(
        f"{bus.http_url}/emit", body, {"Authorization": f"Bearer {credential or bus.token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def page(bus, path):
    with urllib.request.urlopen(f"{bus.http_url}{path}", timeout=30) as answer:
        return answer.read().decode()


def begin(bus):
    """Where what is in memory begins."""
    return json.loads(page(bus, "/readyz"))["positions"]["begin"]


class Application(http.server.ThreadingHTTPServer):
    """Says yes to everybody, and to every topic.

    Attributes:
        asked: Methods, headers and bodies.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Yes)
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Yes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.headers, body))
        answer = {"user": 7} if self.command == "GET" else {"allowed": json.loads(body)["types"]}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def application():
    with Application() as made:
        yield made
        made.shutdown()


def test_no_option_is_left_out():
    assert EFFECTS.keys() == {option.key for option in OPTIONS}


@effect("bus")
def test_bus(tmp_path):
    with running(tmp_path, bus=f"sqlite:{tmp_path}/log.db"):
        assert (tmp_path / "log.db").exists()


@effect("listen", "http")
def test_listen_and_http(tmp_path):
    ports = Ports()
    places = {
        key: f"tcp:{port}:interface=127.0.0.1" for key, port in zip(("listen", "http"), ports.numbers, strict=False)
    }
    process = start([str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "towerbus", *changed(tmp_path, **places)], tmp_path)  # fmt: skip
    try:

        def there():
            with contextlib.suppress(ConnectionRefusedError):
                for port in ports.numbers[:2]:
                    socket.create_connection(("127.0.0.1", port), 20).close()
                return True

        wait_for(there, 40, "both ports")
    finally:
        process.terminate()
        process.communicate(timeout=40)
        ports.release()


@effect("auth")
def test_auth(tmp_path):
    key, good = token(tmp_path)
    with running(tmp_path, auth=[f"jwt:{key}"]) as bus, client(bus, good) as websocket:
        assert json.loads(websocket.recv(20)) == {"accept": True, "user": 7}


@effect("ask_url")
def test_ask_url(tmp_path, application):
    with (
        running(tmp_path, auth=[f"callback:{application.url}"], ask_url=application.url) as bus,
        client(bus, "x") as websocket,
    ):
        assert "job_events-42" in json.loads(subscribed(websocket, {"job_events": [42]}))["groups_current"]
        assert json.loads(application.asked[-1][2]) == {"user": 7, "group": "job_events", "types": ["42"]}


@effect("path")
def test_path(tmp_path):
    with running(tmp_path, path=["/elsewhere/"]) as bus:
        with client(bus) as websocket:
            subscribed(websocket)
        assert "/elsewhere/" in bus.ws_url
        with pytest.raises(InvalidStatus, match="404"), connect(bus.ws_url.replace("elsewhere", "websocket")):
            pass


@effect("origin")
def test_origin(tmp_path):
    with running(tmp_path, origin=["https://*.example.com"]) as bus:
        with client(bus, origin="https://tower.example.com") as websocket:
            subscribed(websocket)
        with pytest.raises(InvalidStatus, match="400"), client(bus, origin="https://example.org"):
            pass


@effect("session_cookie")
def test_session_cookie(tmp_path, application):
    with running(tmp_path, auth=[f"session:{application.url}"], session_cookie=["mine"]) as bus:
        with connect(bus.ws_url.partition("?")[0], additional_headers={"Cookie": "mine=abc"}) as websocket:  # fmt: skip
            assert json.loads(websocket.recv(20))["accept"] is True
        assert application.asked[0][1]["Cookie"] == "mine=abc"


@effect("max_frame")
def test_max_frame(tmp_path):
    with running(tmp_path, max_frame=200) as bus, client(bus) as websocket:
        subscribed(websocket)
        websocket.send(json.dumps({"groups": {"jobs": ["x" * 50] * 5}}))
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(20)
        assert caught.value.rcvd.code == 1009


@effect("max_payload")
def test_max_payload(tmp_path):
    with running(tmp_path, max_payload=1000) as bus:
        assert emit(bus, 900) == 202
        assert emit(bus, 1000) == 413


@effect("outbox")
def test_outbox(tmp_path):
    """So much waits for a client that reads nothing: by default it would have been cut off."""
    with running(tmp_path, outbox=64 * 1024 * 1024) as bus, raw_client(bus) as peer:
        peer.sendall(masked(b'{"groups": {"jobs": ["x"]}}'))
        wait_for(lambda: "towerbus_topics 1.0" in page(bus, "/metrics"), 20, "the subscription")
        for _ in range(12):
            assert emit(bus, 1_000_000) == 202
        waiting = re.search(r"^towerbus_outbox_bytes (\S+)", page(bus, "/metrics"), re.MULTILINE)
        assert float(waiting[1]) > 2 * 1024 * 1024
        assert "towerbus_slow_consumers_total 0.0" in page(bus, "/metrics")


@effect("compression")
def test_compression(tmp_path):
    with running(tmp_path, compression=True) as bus, client(bus) as websocket:
        assert [extension.name for extension in websocket.protocol.extensions] == ["permessage-deflate"]
        subscribed(websocket)
        assert emit(bus, 2000) == 202
        assert json.loads(websocket.recv(20)) == {"text": "x" * 2000}
        found = dict(re.findall(r"^towerbus_(\S+) (\S+)$", page(bus, "/metrics"), re.MULTILINE))
        assert float(found["compressed_clients"]) == 1
        assert 0 < float(found["compression_out_bytes_total"]) < float(found["compression_in_bytes_total"]) / 10
        assert float(found["delivered_bytes_total"]) < 1000


@effect("ping_interval")
def test_ping_interval(tmp_path):
    with running(tmp_path, ping_interval=1) as bus, raw_client(bus) as peer:
        read_until(peer, b"\x89")  # by default it would come after 20 s, and this waits for 9


@effect("handshake_timeout")
def test_handshake_timeout(tmp_path):
    with running(tmp_path, handshake_timeout=1) as bus, raw(bus) as peer:
        ended(peer)


@effect("close_timeout")
def test_close_timeout(tmp_path):
    with running(tmp_path, close_timeout=1) as bus, raw_client(bus, "wrong", until=b"\x88") as peer:
        ended(peer)


@effect("tail_bytes")
def test_tail_bytes(tmp_path):
    with running(tmp_path, bus=f"sqlite:{tmp_path}/log.db", tail_bytes=4096) as bus:
        before = begin(bus)
        assert emit(bus, *[1000] * 20) == 202
        wait_for(lambda: begin(bus) > before, 20, "the tail to be cut")


@effect("log_max_bytes")
def test_log_max_bytes(tmp_path):
    with running(tmp_path, log_max_bytes=4096) as bus:
        before = begin(bus)
        for _ in range(20):
            assert emit(bus, 1000) == 202
        assert begin(bus) > before


@effect("log_max_age")
def test_log_max_age(tmp_path):
    with running(tmp_path, log_max_age=1) as bus:
        before = begin(bus)

        def older():
            assert emit(bus, 10) == 202
            return begin(bus) > before

        wait_for(older, 30, "an event to be too old")


@effect("canary_interval")
def test_canary_interval(tmp_path, vhost):
    with running_server(tmp_path, vhost, *changed(tmp_path, canary_interval=0.25)) as server:
        server.await_page("/readyz", lambda _, said: said["canary"]["period"] == 0.25)


@effect("log_segment_bytes", "intake_max_bytes")
@pytest.mark.parametrize("key", ["log_segment_bytes", "intake_max_bytes"])
def test_what_the_worker_makes(tmp_path, vhost, key):
    """A worker with the default finds what another has made with the changed value."""
    with running_worker(tmp_path, vhost, *changed(tmp_path, **{key: 2_000_000})) as worker:
        worker.await_log("worker_active")
    with running_worker(tmp_path, vhost, *changed(tmp_path), name="other") as other:
        assert other.process.wait(60) == 1
        assert "2000000" in other.log


@effect("record_pause")
def test_record_pause(tmp_path, vhost):
    """Two events that come within a pause share a record."""
    with running_worker(tmp_path, vhost, *changed(tmp_path, record_pause=3)) as worker:
        worker.await_log("worker_active")
        connection = pika.BlockingConnection(pika.URLParameters(vhost))
        channel = connection.channel()
        with LogText(vhost) as log:
            for number in range(3):
                properties = pika.BasicProperties(message_id=f"e{number}")
                channel.basic_publish("towerbus", "jobs.x", json.dumps({"n": number}), properties)
                if number == 0:
                    log.await_events(1)
                else:
                    time.sleep(0.3)  # many default pauses
            log.await_events(3)
            ids = [[event.id for event in record.events] for record in log.records]
            assert [each for each in ids if each] == [["e0"], ["e1", "e2"]]
        connection.close()


@contextlib.contextmanager
def raw(bus):
    host, port = re.search(r"//([\d.]+):(\d+)", bus.ws_url).groups()
    with socket.create_connection((host, int(port)), 9) as peer:
        yield peer


@contextlib.contextmanager
def raw_client(bus, credential=None, until=b'"accept"'):
    """A WebSocket that does nothing by itself, behind the server's first words."""
    with raw(bus) as peer:
        peer.sendall(
            f"GET /websocket/?token={credential or bus.token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        read_until(peer, until)
        yield peer


def ended(peer):
    """Wait for the end of a connection, which by default would come after 10 s: this waits for 9."""
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(1000):
            pass


def read_until(peer, part):
    seen = b""
    while part not in seen:
        more = peer.recv(1000)
        assert more, seen
        seen += more


def masked(payload):
    mask = os.urandom(4)
    return (
        bytes([0x81, 0x80 | len(payload)]) + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    )
