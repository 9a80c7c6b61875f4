"""The emitter, against a real HTTP server that misbehaves on purpose."""

import datetime
import json
import multiprocessing
import threading
import time
import uuid
from collections import ChainMap
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from towerbus import Emitter, NotConfirmed, compat, posting
from towerbus.emitter import EmitRefusedError, emit_url
from towerbus.errors import ConfigError, PeerError


class Handler(BaseHTTPRequestHandler):
    """Answers with the statuses that the server was given, then with 202."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.requests.append((self.path, self.headers.get("Authorization"), json.loads(body)))
            self.server.peers.add(self.client_address)
            status = self.server.statuses.pop(0) if self.server.statuses else 202
        if status == "cut":
            self.close_connection = True
            return
        if status == "late":
            self.server.released.wait(20)
            status = 202
        self.server.bodies.append(body)
        answer = json.dumps(
            {"accepted": 1} if status == 202 else {"error": f"status {status}", "taken": False}
        ).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.lock, made.requests, made.statuses, made.peers, made.released = (
        threading.Lock(),
        [],
        [],
        set(),
        threading.Event(),
    )
    made.bodies = []
    made.url = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


def test_an_event_is_posted_with_the_token_and_an_id(server):
    with Emitter(server.url, "secret") as emitter:
        id_ = emitter.emit("jobs", "status_changed", {"n": 1})
    ((path, authorization, events),) = server.requests
    assert (path, authorization) == ("/emit", "Bearer secret")
    assert events == [{"group": "jobs", "type": "status_changed", "id": id_, "payload": {"n": 1}}]


def test_values_as_djangos_encoder_writes_them(server):
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    key = uuid.uuid4()
    with Emitter(server.url) as emitter:
        emitter.emit("jobs", "x", {"at": moment, "key": key, "cost": Decimal("1.50"), "day": moment.date()})
    payload = server.requests[0][2][0]["payload"]
    assert payload == {"at": "2026-01-02T03:04:05Z", "key": str(key), "cost": "1.50", "day": "2026-01-02"}


def test_many_events_are_one_request_in_order_and_bytes_may_have_line_breaks(server):
    with Emitter(server.url) as emitter:
        ids = emitter.emit_many(
            [{"group": "jobs", "type": n, "payload": b'{\n"n":\r\n1}', "id": f"id{n}"} for n in range(3)]
        )
        assert emitter.emit_many([]) == []
    ((_, _, events),) = server.requests
    assert ids == [event["id"] for event in events] == ["id0", "id1", "id2"]
    assert [event["payload"] for event in events] == [{"n": 1}] * 3


@pytest.mark.parametrize("trouble", [[503], [429, 503], ["cut"], [502]])
def test_what_may_pass_is_tried_again_with_the_same_id(server, trouble):
    server.statuses = list(trouble)
    with Emitter(server.url) as emitter:
        id_ = emitter.emit("jobs", "x", {"n": 1})
    assert len(server.requests) == len(trouble) + 1
    assert {event["id"] for _, _, (event,) in server.requests} == {id_}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_what_is_refused_is_not_tried_again(server, status):
    server.statuses = [status]
    with Emitter(server.url) as emitter, pytest.raises(EmitRefusedError, match=f"status {status}") as caught:
        emitter.emit("jobs", "x", {"n": 1})
    assert caught.value.status == status
    assert len(server.requests) == 1


def test_a_call_has_an_end_and_says_what_is_known(server):
    with (
        Emitter("http://127.0.0.1:9", timeout=0.3) as emitter,
        pytest.raises(NotConfirmed, match="can't be reached") as caught,
    ):
        emitter.emit("jobs", "x", {"n": 1}, id="mine")
    assert (caught.value.id, caught.value.sure) == ("mine", True)
    server.statuses = ["late"] * 9
    started = time.monotonic()
    with Emitter(server.url, timeout=0.5) as emitter, pytest.raises(NotConfirmed) as caught:
        emitter.emit("jobs", "x", {"n": 1})
    assert time.monotonic() - started < 10
    assert not caught.value.sure


@pytest.mark.parametrize(
    ("group", "type_", "payload", "id_"),
    [("a b", "x", {"n": 1}, None), ("_towerbus", "x", {"n": 1}, None), ("jobs", "", {"n": 1}, None), ("jobs", "x", {"n": object()}, None),
     ("jobs", "x", {"n": 1}, "a b")],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_sent(server, group, type_, payload, id_):
    with Emitter(server.url) as emitter, pytest.raises(PeerError):
        emitter.emit(group, type_, payload, id_)
    assert server.requests == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://h:1", "http://h:1/emit"),
        ("http://h:1/emit", "http://h:1/emit"),
        ("https://h/bus/", "https://h/bus/emit"),
    ],
)
def test_urls(given, expected):
    assert emit_url(given) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ws://h/websocket/",
        "nonsense",
        "ftp://h",
        "http://",
        "http://[",
        "http://h:99999",
        "http://h/ä",
        "http://h/a b\n",
    ],
)
def test_urls_that_are_none(url):
    with pytest.raises(ConfigError):
        Emitter(url)


def test_threads_share_it(server):
    with Emitter(server.url) as emitter:
        threads = [threading.Thread(target=emitter.emit, args=("jobs", n, {"n": n})) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(int(events[0]["type"]) for _, _, events in server.requests) == list(range(20))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_does_not_share_sockets(server):
    with Emitter(server.url) as emitter:
        emitter.emit("jobs", "parent", {"n": 1})
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=emitter.emit, args=("jobs", f"child{n}", {"n": n})) for n in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(20)
            assert child.exitcode == 0
        emitter.emit("jobs", "parent", {"n": 2})
    assert len(server.requests) == 5
    assert len(server.peers) == 4, "one connection for each process"


def test_the_bytes_of_a_payload_stay_as_they_are(server):
    payload = b'{ "n":\r\n 1.10,"text": "\\u00e4" }'
    with Emitter(server.url) as emitter:
        emitter.emit("jobs", "x", payload)
    assert payload in server.bodies[0]


@pytest.mark.parametrize("payload", [b'{"n":1},"id":"stolen","payload":{"m":2}', b"[1]", b"{}", b"", b'{"n":"\xff"}'])
def test_bytes_that_are_no_payload_never_leave(server, payload):
    with Emitter(server.url) as emitter, pytest.raises(PeerError, match="payload"):
        emitter.emit("jobs", "x", payload)
    assert server.requests == []


def test_a_bad_one_among_many_is_named(server):
    with Emitter(server.url) as emitter:
        with pytest.raises(PeerError, match="item 1: no payload"):
            emitter.emit_many([{"group": "jobs", "type": "x", "payload": {"n": 1}}, {"group": "jobs", "type": "x"}])
        with pytest.raises(PeerError, match="group 7 is not a text"):
            emitter.emit(7, "x", {"n": 1})
    assert server.requests == []


def test_texts_of_other_kinds_and_mappings(server):
    class Safe(str):
        __slots__ = ()

    with Emitter(server.url) as emitter:
        emitter.emit("jobs", "x", {"text": Safe("a"), "map": ChainMap({"n": 1})})
    assert server.requests[0][2][0]["payload"] == {"text": "a", "map": {"n": 1}}


def test_a_text_that_django_translates_late_is_written_as_text():
    promise = type("Promise", (), {"__module__": "django.utils.functional"})
    lazy = type("__proxy__", (promise,), {"__str__": lambda self: "translated"})()
    assert posting.encode({"text": lazy}) == b'{"text":"translated"}'


def test_a_refusal_after_a_try_in_doubt_does_not_say_that_nothing_was_taken(server):
    server.statuses = ["cut", 401]
    with Emitter(server.url) as emitter, pytest.raises(NotConfirmed, match="status 401") as caught:
        emitter.emit("jobs", "x", {"n": 1}, id="mine")
    assert (caught.value.id, caught.value.sure) == ("mine", False)


def test_a_token_in_the_url_is_used_and_one_that_was_given_comes_first(server, monkeypatch):
    monkeypatch.setenv("TOWERBUS_TOKEN", "environment")
    for token, expected in [(None, "Bearer url"), ("given", "Bearer given")]:
        with Emitter(f"{server.url}/?token=url", token) as emitter:
            emitter.emit("jobs", "x", {"n": 1})
        assert server.requests[-1][:2] == ("/emit", expected)


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä"])
def test_tokens_that_are_none(token):
    with pytest.raises(ConfigError, match="token"):
        Emitter("http://h", token)


def test_an_emitter_that_was_closed_makes_new_connections(server):
    emitter = Emitter(server.url)
    for _ in range(2):
        emitter.emit("jobs", "x", {"n": 1})
        emitter.close()
    assert len(server.peers) == 2


def test_nothing_is_locked_that_a_fork_could_leave_locked():
    """A thread that holds a lock while another forks would leave it held in the child for ever."""
    lock_types = (type(threading.Lock()), type(threading.RLock()))
    held = [*vars(Emitter("http://h")).values(), *vars(compat).values(), *vars(posting).values()]
    assert not [value for value in held if isinstance(value, lock_types)]
