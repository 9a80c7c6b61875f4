"""AWX's own client, unmodified, in both of its modes."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from awxkit.ws import WSClient
from support.running import running_towerbus, wait_for

from towerbus import Emitter

# It leaves its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

PENDING = {"group_name": "jobs", "status": "pending", "unified_job_id": 7, "type": "ad_hoc_command"}


class Application(BaseHTTPRequestHandler):
    """An application that knows one session, and answers as AWX's /api/v2/me/ does."""

    def do_GET(self):
        known = 'awx_sessionid="sess123"' in self.headers.get("Cookie", "")
        body = json.dumps({"results": [{"id": 7, "username": "ada"}]} if known else {}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def application():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api/v2/me/"
    server.shutdown()
    server.server_close()


def port_of(url):
    return int(url.split("/")[2].rsplit(":", 1)[1])


def take(client, count):
    """The next messages, in order."""
    messages = []

    def enough():
        messages.extend(client)
        return len(messages) >= count

    wait_for(enough, 10, f"{count} messages")
    return messages


def converse(client, emitter):
    """What AWX's own test suite does with it."""
    client.connect()
    (accept,) = take(client, 1)
    client.subscribe(jobs=["status_changed", "summary"])
    (reply,) = take(client, 1)
    assert reply["groups_current"] == ["jobs-status_changed", "jobs-summary"]
    emitter.emit("jobs", "status_changed", PENDING)
    assert take(client, 1) == [PENDING], "events are exactly the dicts that were emitted"
    client.unsubscribe(wait=True)
    emitter.emit("jobs", "status_changed", {"not": "seen"})
    client.status_changes()
    replies = []
    wait_for(lambda: replies.extend(client) or any(each["groups_joined"] for each in replies), 10, "the reply")
    assert {"not": "seen"} not in replies
    return accept


def test_token_mode(tmp_path):
    with running_towerbus(tmp_path) as bus, Emitter(bus.http_url, bus.token) as emitter:
        client = WSClient(bus.token, hostname="127.0.0.1", port=port_of(bus.ws_url), secure=False)
        assert converse(client, emitter) == {"accept": True, "user": 1}
        client.close()


def test_pending_stdout_flow(tmp_path):
    with running_towerbus(tmp_path) as bus, Emitter(bus.http_url, bus.token) as emitter:
        client = WSClient(bus.token, hostname="127.0.0.1", port=port_of(bus.ws_url), secure=False)
        client.connect()
        take(client, 1)
        client.pending_ad_hoc_stdout()
        take(client, 1)
        emitter.emit("jobs", "status_changed", PENDING)
        # The client itself subscribes to the command's events when it sees it pending.
        messages = take(client, 2)
        assert PENDING in messages
        (reply,) = [message for message in messages if "groups_current" in message]
        assert "ad_hoc_command_events-7" in reply["groups_joined"]
        event = {"group_name": "ad_hoc_command_events", "ad_hoc_command": 7, "counter": 1, "stdout": "hello"}
        emitter.emit("ad_hoc_command_events", 7, event)
        assert take(client, 1) == [event]
        client.close()


def test_session_mode(tmp_path, application):
    key = tmp_path / "key"
    key.write_text("k" * 40)
    from towerbus.auth.jwt import mint

    token = mint(str(key), user=1, emit=["*"])
    ports = ["--auth", f"jwt:{key}", "--auth", f"session:{application}"]
    with running_towerbus(tmp_path, *ports) as bus, Emitter(bus.http_url, token) as emitter:
        client = WSClient(
            hostname="127.0.0.1", port=port_of(bus.ws_url), secure=False, session_id="sess123", csrftoken="tok456"
        )
        assert converse(client, emitter) == {"accept": True, "user": 7}
        client.close()
        stranger = WSClient(
            hostname="127.0.0.1", port=port_of(bus.ws_url), secure=False, session_id="other", csrftoken="x"
        )
        stranger.connect()
        assert take(stranger, 1) == [{"close": True}]
