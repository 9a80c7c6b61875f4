"""The shipped nginx files in a real nginx, in front of real servers."""

import asyncio
import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import ssl
import threading
import warnings
from urllib.parse import urlsplit

import pytest
from support.nginx import checked, development, production, running_nginx
from support.ports import Ports
from support.running import running_towerbus, wait_for
from support.server import running_server
from support.worker import running_worker
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

pytestmark = pytest.mark.long

EVENT = {"group": "jobs", "type": "x", "payload": {"n": 1}}
PAYLOAD = '{"n": 1}'
MIB = 1024 * 1024


class App(http.server.ThreadingHTTPServer):
    """The application behind nginx, which also knows the users.

    Attributes:
        asked: The path and the headers of each request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers))
        body = json.dumps({"user": 7, "grants": {"subscribe": ["*"]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def app():
    with App() as made:
        yield made
        made.shutdown()


def port(url):
    return urlsplit(url).port


@pytest.fixture
def bus(tmp_path):
    with running_towerbus(tmp_path) as running:
        yield running


@pytest.fixture
def front(tmp_path, bus, app):
    with running_nginx(tmp_path / "nginx", [port(bus.ws_url)], [port(bus.http_url)], app.port) as nginx:
        yield nginx


class Client:
    """A WebSocket over TLS, in a loop of its own that turns while it is asked for something.

    The blocking client of websockets reads and writes one TLS connection from two threads, which Python can't do before
    3.13: now and then a request gets lost.
    """

    def __init__(self, nginx, token, path="/websocket/", **more):
        context = ssl.create_default_context(cafile=nginx.authority)

        async def opened():
            return await async_connect(nginx.url(f"{path}?token={token}"), ssl=context, open_timeout=20, **more)

        self._runner = asyncio.Runner()
        try:
            self._socket = self._runner.run(opened())
        except BaseException:
            self._runner.close()
            raise
        self.subprotocol = self._socket.subprotocol

    def recv(self, seconds):
        return self._runner.run(asyncio.wait_for(self._socket.recv(), seconds))

    def send(self, text):
        self._runner.run(self._socket.send(text))

    def close(self):
        self._runner.run(self._socket.close())
        self._runner.close()

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.close()


def ask(nginx, method, path, body=None, headers=None, scheme="https"):
    """A request; returns status, headers and body."""
    if scheme == "https":
        context = ssl.create_default_context(cafile=nginx.authority)
        connection = http.client.HTTPSConnection("127.0.0.1", nginx.secure, timeout=30, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", nginx.plain, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode().strip()


def emit(nginx, token, body, **headers):
    status, _, text = ask(nginx, "POST", "/emit", body, {"Authorization": f"Bearer {token}", **headers})
    return status, text


def subscribe(websocket):
    assert json.loads(websocket.recv(20))["accept"] is True
    websocket.send(json.dumps({"groups": {"jobs": ["x"]}}))
    assert "jobs-x" in websocket.recv(20)


def test_nginx_has_nothing_to_say_about_the_files(tmp_path):
    production(tmp_path / "one", (20001, 20002), [20003])
    development(tmp_path / "two", (20001, 20002), 20003, 20004, 20005)
    for said in checked(tmp_path / "one"), checked(tmp_path / "two", "development.conf"):
        assert [line.rpartition(" ")[2] for line in said.splitlines()] == ["ok", "successful"], said


@pytest.mark.parametrize("path", ["/websocket/", "/websocket"])
def test_events_go_through_it_over_tls(bus, front, path):
    with Client(front, bus.token, path, subprotocols=["towerbus.v1"]) as websocket:
        assert websocket.subprotocol == "towerbus.v1"
        subscribe(websocket)
        assert emit(front, bus.token, json.dumps(EVENT)) == (202, '{"accepted":1}')
        assert json.loads(websocket.recv(20))["data"] == {"n": 1}


def test_what_does_not_upgrade_gets_the_servers_own_answer(bus, front, app):
    status, headers, _ = ask(front, "GET", "/websocket/")
    assert status in {400, 426}
    assert headers["Server"] == "nginx"
    assert not app.asked


def test_only_the_websocket_and_emit_are_towerbus(front, app):
    for path in (
        "/",
        "/static/app.js?v=1",
        "/api/v2/jobs/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/websockets/",
        "/emit/",
    ):
        assert ask(front, "GET", path)[0] == 200
    assert [path for path, _ in app.asked] == [
        "/", "/static/app.js?v=1", "/api/v2/jobs/", "/healthz", "/readyz", "/metrics", "/websockets/", "/emit/"
    ]  # fmt: skip
    seen = app.asked[0][1]
    assert (seen["Host"], seen["X-Forwarded-Proto"]) == (f"127.0.0.1:{front.secure}", "https")


def test_plain_http_leads_to_https(front):
    status, headers, _ = ask(front, "GET", "/api/?a=b", scheme="http")
    assert (status, headers["Location"]) == (308, "https://127.0.0.1/api/?a=b")


def test_tls_is_1_2_or_later(front):
    """Plain sockets: no client library is to be too strict to try."""
    for version, good in (("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(front.authority)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):  # Python says that the old one is old
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with socket.create_connection(("127.0.0.1", front.secure), 20) as raw:
            try:
                context.wrap_socket(raw, server_hostname="127.0.0.1").close()
                shaken = True
            except (ssl.SSLError, ConnectionError):
                shaken = False
        assert shaken is good, version


def test_no_token_is_in_any_log(tmp_path, app):
    with (  # noqa: PT012
        pytest.raises(AssertionError, match="exited with -9"),  # the server is killed below
        running_towerbus(tmp_path) as bus,
        running_nginx(tmp_path / "nginx", [port(bus.ws_url)], [port(bus.http_url)], app.port) as front,
    ):
        with Client(front, bus.token) as websocket:
            subscribe(websocket)
        with Client(front, "", additional_headers={"Referer": f"https://x/?token={bus.token}"}):
            pass
        assert ask(front, "POST", f"/emit?token={bus.token}", json.dumps(EVENT))[0] == 202
        ask(front, "GET", f"/websocket/?token={bus.token}", scheme="http")
        os.kill(bus.process.pid, signal.SIGKILL)
        bus.process.wait()
        assert ask(front, "GET", f"/websocket/?token={bus.token}")[0] == 502
        assert ask(front, "POST", f"/emit?token={bus.token}", json.dumps(EVENT))[0] == 502

        def logged():
            return [f'"GET /websocket/ HTTP/1.1" {status}' in front.access_log for status in (101, 308, 502)]

        wait_for(lambda: all(logged()), 20, "the lines")
        assert '"POST /emit HTTP/1.1" 202' in front.access_log
        assert f'"127.0.0.1:{port(bus.ws_url)}" "502"' in front.access_log
        assert bus.token not in front.written, "a token was logged"


def test_idle_clients_stay_and_those_of_a_server_that_is_gone_do_not(tmp_path):
    """Quiet for longer than nginx waits, kept by the server's pings alone."""
    shorter = {"proxy_read_timeout 90s;": "proxy_read_timeout 3s;", "proxy_send_timeout 90s;": "proxy_send_timeout 3s;"}
    with running_towerbus(tmp_path, "--ping-interval", "1") as bus:
        upstreams = [port(bus.ws_url)], [port(bus.http_url)]
        with (
            running_nginx(tmp_path / "nginx", *upstreams, changes=shorter) as front,
            Client(front, bus.token, ping_interval=None) as websocket,
        ):
            subscribe(websocket)
            with pytest.raises(TimeoutError):
                websocket.recv(8)
            assert emit(front, bus.token, json.dumps(EVENT))[0] == 202
            assert websocket.recv(20) == PAYLOAD
            os.kill(bus.process.pid, signal.SIGSTOP)
            try:
                with pytest.raises(ConnectionClosed):
                    websocket.recv(40)
            finally:
                os.kill(bus.process.pid, signal.SIGCONT)


def test_bodies_as_large_as_a_server_takes_go_through_and_larger_ones_do_not(bus, front):
    with Client(front, bus.token) as websocket:
        subscribe(websocket)
        body = json.dumps([{**EVENT, "payload": {"text": "x" * 1_000_000}}] * 15)
        assert MIB < len(body) <= 16 * MIB
        assert emit(front, bus.token, body) == (202, '{"accepted":15}')
    too_large = b" " * (16 * MIB + 1)
    assert emit(front, bus.token, too_large)[0] == 413
    chunks = [too_large[:MIB]] * 17
    with contextlib.suppress(ConnectionError):  # what an answer in the middle of a body may come to
        assert emit(front, bus.token, iter(chunks))[0] == 413
    assert emit(front, bus.token, json.dumps(EVENT))[0] == 202


def test_a_wrong_token_is_answered_before_the_body_is_there(front):
    context = ssl.create_default_context(cafile=front.authority)
    with (
        socket.create_connection(("127.0.0.1", front.secure), 20) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(
            b"POST /emit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 1000000\r\n\r\n["
        )
        assert tls.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_a_client_can_not_choose_the_address_that_the_application_is_told(tmp_path, app):
    with (
        running_towerbus(tmp_path, "--auth", f"callback:http://127.0.0.1:{app.port}/who/") as bus,
        running_nginx(tmp_path / "nginx", [port(bus.ws_url)], [port(bus.http_url)], app.port) as front,
        Client(front, "good", additional_headers={"X-Forwarded-For": "6.6.6.6"}) as websocket,
    ):
        subscribe(websocket)
        ((path, headers),) = app.asked
        assert path == "/who/"
        # What nginx saw, and who asked the server: nginx.
        assert headers["X-Forwarded-For"] == "127.0.0.1, 127.0.0.1"


def test_a_restart_of_one_server_behind_it_loses_nothing(tmp_path, vhost):
    ports = Ports()
    numbers = ports.numbers[:4]
    places = [
        ["--listen", f"tcp:{one}:interface=127.0.0.1", "--http", f"tcp:{other}:interface=127.0.0.1"]
        for one, other in (numbers[:2], numbers[2:])
    ]
    with contextlib.ExitStack() as stack:
        stack.callback(ports.release)
        stack.enter_context(running_worker(tmp_path, vhost))
        first = stack.enter_context(running_server(tmp_path, vhost, *places[0], name="first"))
        second = stack.enter_context(running_server(tmp_path, vhost, *places[1], name="second"))
        first.await_ready()
        second.await_ready()
        front = stack.enter_context(running_nginx(tmp_path / "nginx", numbers[::2], numbers[1::2]))
        clients = [_Resuming(front, first.token) for _ in range(6)]
        for each in clients:
            stack.callback(each.end)
        counts = [clients_of(server) for server in (first, second)]
        assert counts == [3, 3]  # least_conn
        sent = [_post(front, first.token, number) for number in range(20)]
        first.stop()
        sent += [_post(front, first.token, number) for number in range(20, 40)]
        assert sent == [202] * 40
        for each in clients:
            assert each.until(40) == list(range(40))
        assert sum(each.resumed for each in clients) == 3
        with running_server(tmp_path, vhost, *places[0], name="again") as again:
            again.await_ready()
            late = []

            def come():
                late.append(_Resuming(front, first.token))
                stack.callback(late[-1].end)
                return clients_of(again) > 0

            # Those who come when nginx has seen that it is back go where there are fewest.
            wait_for(come, 20, "clients at the server that came back")
            assert _post(front, first.token, 40) == 202
            assert all(each.until(41) == list(range(41)) for each in clients)
            assert all(each.until(1) == [40] for each in late)


def clients_of(server):
    _, text = server.get("/metrics")
    return int(
        float(
            next(
                line for line in text.splitlines() if line.startswith('towerbus_clients{dialect="towerbus.v1"}')
            ).split()[1]
        )
    )


def _post(front, token, number):
    """Emit until it is taken; the id keeps a second try from being a second event."""
    body = json.dumps({"group": "jobs", "type": "x", "payload": {"n": number}, "id": f"n{number}"})
    answers = []

    def taken():
        answers.append(emit(front, token, body)[0])
        return answers[-1] == 202

    wait_for(taken, 30, f"the confirmation of {number}")
    return answers[-1]


class _Resuming:
    """A client of `towerbus.v1` that comes back with its last position.

    Attributes:
        resumed: How often.
    """

    def __init__(self, front, token):
        self._front, self._token, self.numbers, self.resumed, self._since = front, token, [], 0, None
        self._connect()

    def _connect(self):
        self._socket = Client(self._front, self._token, subprotocols=["towerbus.v1"], close_timeout=1)
        self._socket.recv(20)
        since = {} if self._since is None else {"since": self._since}
        self._socket.send(json.dumps({"groups": {"jobs": ["x"]}, **since}))
        said = json.loads(self._socket.recv(20))
        assert since == {} or said["recovered"] is True
        self._since = said["position"] if not since else self._since

    def until(self, count):
        """Read until there are so many events; returns their numbers."""
        while len(self.numbers) < count:
            try:
                said = json.loads(self._socket.recv(20))
            except ConnectionClosed:
                self.resumed += 1
                self._socket.close()
                self._connect()
                continue
            if "data" in said:
                self.numbers.append(said["data"]["n"])
                self._since = said["position"]
        return self.numbers

    def end(self):
        self._socket.close()


def test_development_speaks_both_and_shows_the_http_listener_where_no_application_runs(tmp_path, bus):
    upstreams = port(bus.ws_url), port(bus.http_url), 1
    with running_nginx(tmp_path / "nginx", *upstreams, make=development, file="development.conf") as front:
        with Client(front, bus.token) as websocket:
            subscribe(websocket)
            assert (
                ask(front, "POST", "/emit", json.dumps(EVENT), {"Authorization": f"Bearer {bus.token}"}, "http")[0]
                == 202
            )
            assert websocket.recv(20) == PAYLOAD
        with connect(front.url(f"/websocket/?token={bus.token}", "ws")) as websocket:
            subscribe(websocket)
        assert ask(front, "GET", "/healthz", scheme="http")[::2] == (200, '{"alive":true}')
        assert bus.token not in front.written
