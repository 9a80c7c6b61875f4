"""Tower's own call, against a real HTTP server."""

import json
import multiprocessing
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from towerbus import Emitter, NotConfirmed, compat
from towerbus.errors import ConfigError, PeerError


class Handler(BaseHTTPRequestHandler):
    """Confirms everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers.get("Authorization"), body))
        self.server.peers.add(self.client_address)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.requests, made.peers = [], set()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setenv("TOWERBUS_URL", f"http://127.0.0.1:{made.server_port}")
    monkeypatch.setenv("TOWERBUS_TOKEN", "secret")
    monkeypatch.setattr(compat, "_emitters", [])
    yield made
    for emitter in compat._emitters:
        emitter.close()
    made.shutdown()
    made.server_close()


def test_towers_own_call(server):
    assert compat.emit_channel_notification("job_events-42", {"counter": 1}) is None
    ((_, authorization, (event,)),) = server.requests
    assert authorization == "Bearer secret"
    assert (event["group"], event["type"], event["payload"]) == ("job_events", "42", {"counter": 1})
    with pytest.raises(PeerError):
        compat.emit_channel_notification("nonsense", {"n": 1})


def test_towers_callers_catch_oserror(monkeypatch):
    emitter = Emitter("http://127.0.0.1:9", timeout=0.1)
    monkeypatch.setattr(compat, "_emitters", [emitter])
    with pytest.raises(OSError) as caught:
        compat.emit_channel_notification("jobs-x", {"n": 1})
    assert isinstance(caught.value, NotConfirmed)
    assert caught.value.id
    emitter.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_and_its_children_each_have_one_connection(server):
    compat.emit_channel_notification("jobs-x", {"n": 1})
    context = multiprocessing.get_context("fork")
    child = context.Process(target=compat.emit_channel_notification, args=("jobs-child", {"n": 2}))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    compat.emit_channel_notification("jobs-x", {"n": 3})
    assert [events[0]["payload"]["n"] for _, _, events in server.requests] == [1, 2, 3]
    assert len(server.peers) == 2


def test_a_call_takes_no_longer_than_the_environment_says(monkeypatch):
    monkeypatch.setattr(compat, "_emitters", [])
    monkeypatch.setenv("TOWERBUS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TOWERBUS_TIMEOUT", "0.1")
    with pytest.raises(OSError, match="within 0.1 s"):
        compat.emit_channel_notification("jobs-x", {"n": 1})
    compat._emitters.pop().close()


@pytest.mark.parametrize("wrong", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_none_is_named(monkeypatch, wrong):
    monkeypatch.setattr(compat, "_emitters", [])
    monkeypatch.setenv("TOWERBUS_TIMEOUT", wrong)
    with pytest.raises(ConfigError, match="TOWERBUS_TIMEOUT"):
        compat.emit_channel_notification("jobs-x", {"n": 1})
