"""`towerbus bench` against real servers, and against a server that lies."""

import json
import os
import subprocess

import pytest
from support.benching import TOWERBUS, measured, run_bench
from support.certificates import Certificates
from support.proxy_lies import ForgetfulProxy, LyingProxy, SeamProxy
from support.proxy_links import TO_CLIENT
from support.running import environment, running_towerbus
from support.server import running_server
from support.worker import running_worker

pytestmark = pytest.mark.long

V1 = ["--dialect", "towerbus.v1"]


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    with running_towerbus(tmp_path_factory.mktemp("bus")) as running:
        yield running


@pytest.mark.parametrize("dialect", ["tower", "towerbus.v1"])
@pytest.mark.parametrize(
    ("words", "deliveries"),
    [
        (["--clients", "40", "--events", "30"], 40 * 30),
        (["--clients", "40", "--events", "60", "--burst", "7"], 40 * 60),
        (["--clients", "40", "--events", "60", "--rate", "300", "--processes", "3"], 40 * 60),
        (["--clients", "40", "--events", "60", "--topics", "6", "--each", "2"], 20 * 40),
        (["--load", "idle", "--clients", "60", "--busy", "6", "--events", "20"], 6 * 20),
        (["--load", "tower-day", "--clients", "30", "--jobs", "10", "--rate", "200", "--status-rate", "50", "--seconds", "1", "--warm-up", "0"],
         30 * 50 + 200 * 3),
        (["--load", "slow", "--clients", "20", "--slow", "2", "--rate", "200", "--seconds", "1"], 20 * 200),
    ],
)  # fmt: skip
def test_every_delivery_is_counted(bus, dialect, words, deliveries):
    figures = measured(bus, *words, "--dialect", dialect)
    assert figures["true"] is True
    assert not any(figures["untruths"].values())
    assert figures["deliveries"] == deliveries
    assert figures["dialect"] == dialect


@pytest.mark.parametrize(
    "words",
    [V1, ["--load", "slow", "--slow", "2", "--rate", "200", "--seconds", "1"], ["--load", "storm", "--seconds", "1"]],
)
def test_compressed_deliveries_are_counted_too(tmp_path, words):
    with running_towerbus(tmp_path, "--compression", "on") as bus:
        figures = measured(bus, "--compression", "--clients", "40", "--size", "600", *words)
        assert figures["true"] is True
        assert figures["compression"] is True
        assert figures["deliveries"] >= 40
        assert (
            "compressed"
            in run_bench("--url", bus.ws_url, "--http", bus.http_url, "--compression", "--clients", "5").stdout
        )


def test_a_server_that_does_not_compress_is_told_of(bus):
    done = run_bench("--url", bus.ws_url, "--http", bus.http_url, "--compression", "--clients", "5", code=2)
    assert "start it with --compression on" in done.stderr


@pytest.mark.parametrize("dialect", ["tower", "towerbus.v1"])
def test_sets_are_replaced_while_events_flow(bus, dialect):
    words = [
        "--load",
        "navigation",
        "--clients",
        "40",
        "--period",
        "0.1",
        "--rate",
        "400",
        "--seconds",
        "1.5",
        "--topics",
        "5",
    ]
    figures = measured(bus, *words, "--dialect", dialect)
    assert figures["counts"]["replaced"] > 200
    # A quarter of the events are for all, and of the others three pages of five.
    assert figures["deliveries"] > 40 * 600 * 0.6


def test_those_who_are_cut_get_exactly_what_they_missed(bus):
    figures = measured(bus, "--load", "storm", "--clients", "100", "--rate", "200", "--seconds", "2")
    assert figures["counts"]["returned"] == 200
    assert figures["deliveries"] == 100 * 400
    assert figures["returned_ms"]["max"] > 0


@pytest.mark.parametrize(("dialect", "whole"), [("tower", False), ("towerbus.v1", True)])
def test_slow_clients_are_closed_and_have_got_what_was_promised(bus, dialect, whole):
    words = [
        "--clients",
        "8",
        "--slow",
        "2",
        "--slow-rate",
        "1000",
        "--size",
        "200000",
        "--rate",
        "40",
        "--seconds",
        "2",
    ]
    figures = measured(bus, "--load", "slow", *words, "--dialect", dialect)
    assert figures["counts"]["closed slow"] == 2
    assert (figures["deliveries"] == 8 * 80) is whole
    assert figures["deliveries"] >= 6 * 80


def test_what_it_costs_is_measured_where_the_server_is_here(bus):
    with subprocess.Popen(["sleep", "60"]) as broker:
        figures = measured(bus, "--clients", "100", "--events", "50", "--pid", f"broker={broker.pid}")
        broker.kill()
    parts = {part["name"]: part for part in figures["parts"]}
    assert parts["server"]["pids"] == [bus.process.pid]
    assert figures["cpu_us"] == parts["server"]["cpu_us"] > 0
    assert parts["server"]["handshake_us"] > 0
    assert parts["broker"]["broker"] is True
    assert figures["broker_cpu_us"] == parts["broker"]["cpu_us"]
    assert figures["receipt_ms"]["p50"] <= figures["receipt_ms"]["p99"] <= figures["receipt_ms"]["max"]


def test_the_table_is_for_people_and_the_file_for_programs(bus, tmp_path):
    file = tmp_path / "result.json"
    done = run_bench(
        "--url", bus.ws_url, "--http", bus.http_url, "--clients", "20", "--events", "10", "--json", str(file)
    )
    assert done.stdout.startswith("topic: 20 clients (tower), 10 events of 300 bytes, one in flight\n")
    assert "200 deliveries: all true" in done.stdout
    assert bus.token not in done.stdout + file.read_text()
    assert json.loads(file.read_text())["deliveries"] == 200


def test_a_terminal_gets_a_progress_bar(bus):
    import pty

    ours, theirs = pty.openpty()
    words = [TOWERBUS, "bench", "--url", bus.ws_url, "--http", bus.http_url, "--clients", "20", "--events", "30"]
    subprocess.run(words, stderr=theirs, stdout=subprocess.PIPE, check=True, timeout=60, env=environment())
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "emitting" in shown
    assert "connecting" in shown
    assert "100%" in shown


@pytest.mark.parametrize(
    ("lie", "kind", "text"),
    [
        ("drop", "lost", "did not get event"),
        ("repeat", "repeated", "again"),
        ("swap", "out of order", "behind event"),
        ("change", "changed", "bytes for 300, from byte 2"),
        ("invent", "stray", "hm"),
        ("misdirect", "stray", "is not subscribed"),
        ("cut", "dropped", "connection was lost"),
    ],
)
@pytest.mark.parametrize(("dialect", "begins"), [("tower", b'{"run":'), ("towerbus.v1", b'{"group":')])
def test_a_lie_is_found_and_named(bus, lie, kind, text, dialect, begins):
    with LyingProxy(bus.ws_url, lie, begins) as proxy:
        words = ["--clients", "6", "--topics", "2", "--rate", "100", "--events", "40", "--warm-up", "0"]
        figures = measured(bus, *words, "--dialect", dialect, url=proxy.url, code=1)
        assert proxy.told == 1
    assert figures["true"] is False
    assert {name: number for name, number in figures["untruths"].items() if number} == {kind: 1}
    [example] = figures["examples"]
    assert example.startswith(f"{kind}: client ")
    assert text in example


@pytest.mark.parametrize(
    ("lie", "words", "text"),
    [
        ("displace", [], "position"),
        ("displace", ["--clients", "2", "--processes", "2"], "position"),
        ("postdate", ["--clients", "2", "--processes", "2"], "time"),
        ("tell_a_position_ahead", [], "position"),
    ],
)
def test_what_is_told_of_places_must_be_the_same_for_all(bus, lie, words, text):
    with LyingProxy(bus.ws_url, lie, b'{"group":') as proxy:
        words = ["--clients", "3", "--rate", "50", "--events", "20", *V1, *words]
        figures = measured(bus, *words, url=proxy.url, code=1)
        assert proxy.told == 1
    assert {name for name, number in figures["untruths"].items() if number} == {"changed"}
    assert text in figures["examples"][0]


def test_what_is_missing_where_a_set_is_replaced_is_lost(bus):
    """The last event of a topic that is left, which nothing of the client's own shows."""
    with SeamProxy(bus.ws_url) as proxy:
        words = ["--clients", "10", "--rate", "200", "--seconds", "3", "--topics", "5", *V1]
        figures = measured(bus, "--load", "navigation", *words, url=proxy.url, code=1)
        assert proxy.told == 1
    assert {name: number for name, number in figures["untruths"].items() if number} == {"lost": 1}


@pytest.mark.parametrize(
    ("lie", "begins", "words", "found"),
    [
        ("invent_another_runs", b'{"run":', [], {"stray": 1}),
        ("greet_again", b'{"run":', [], {"stray": 1}),
        ("tell_a_position", b'{"group":', V1, {"stray": 1}),
        ("change_a_key", b'{"group":', V1, {"stray": 1, "lost": 1}),
    ],
)
def test_what_looks_like_the_truth_is_named(bus, lie, begins, words, found):
    with LyingProxy(bus.ws_url, lie, begins) as proxy:
        words = ["--clients", "6", "--rate", "100", "--events", "40", "--warm-up", "0", *words]
        figures = measured(bus, *words, url=proxy.url, code=1)
        assert proxy.told == 1
    assert {name: number for name, number in figures["untruths"].items() if number} == found


STORM = ["--load", "storm", "--clients", "10", "--rate", "40", "--events", "60", "--warm-up", "0", "--patience", "2"]


def test_those_who_do_not_get_in_again_have_lost_what_they_missed(bus):
    with LyingProxy(bus.ws_url, "shut", b'{"group":') as proxy:
        figures = measured(bus, *STORM, url=proxy.url, code=1)
    assert figures["untruths"]["dropped"] == 10
    assert figures["untruths"]["lost"] + figures["deliveries"] == 600
    assert "client 0 was cut, and did not get in again" in str(figures["examples"])


def test_a_refusal_for_a_while_is_no_end_for_those_who_come_back(bus):
    with LyingProxy(bus.ws_url, "shut_for_a_while", b'{"group":') as proxy:
        figures = measured(bus, *STORM, "--patience", "10", url=proxy.url)
    assert figures["counts"]["tried again"] > 0
    assert figures["deliveries"] == 600


ALL_SLOW = [
    "--load",
    "slow",
    "--clients",
    "6",
    "--slow",
    "6",
    "--slow-rate",
    "200000",
    "--rate",
    "20",
    "--events",
    "40",
]


@pytest.mark.parametrize(("lie", "found"), [("cut", {"dropped": 1}), ("drop_and_close", {"dropped": 1, "lost": 1})])
def test_a_slow_client_is_excused_only_where_it_is_behind_and_for_what_comes_later(bus, lie, found):
    with LyingProxy(bus.ws_url, lie) as proxy:
        figures = measured(bus, *ALL_SLOW, "--warm-up", "0", "--patience", "2", url=proxy.url, code=1)
    assert {name: number for name, number in figures["untruths"].items() if number} == found


def test_a_slow_client_that_is_back_before_the_end_has_everything(bus):
    with LyingProxy(bus.ws_url, "starve_and_close", b'{"group":') as proxy:
        figures = measured(bus, *ALL_SLOW, *V1, "--warm-up", "0", url=proxy.url)
        assert proxy.told == 1
    assert figures["counts"]["closed slow"] == 1
    assert figures["deliveries"] == 240


def test_a_reply_to_since_says_whether_what_was_missed_follows(bus):
    with ForgetfulProxy(bus.ws_url) as proxy:
        figures = measured(bus, *STORM, url=proxy.url, code=1)
    assert {name: number for name, number in figures["untruths"].items() if number} == {"changed": 1}
    assert "the reply to since has None for recovered" in figures["examples"][0]


@pytest.mark.parametrize(
    ("lie", "begins", "words"), [("dismiss", b'{"run":', []), ("dismiss_by_code", b'{"group":', V1)]
)
def test_who_was_let_in_and_may_not_stay_is_dropped(bus, lie, begins, words):
    with LyingProxy(bus.ws_url, lie, begins) as proxy:
        words = ["--clients", "6", "--rate", "50", "--events", "100", "--warm-up", "0", *words]
        figures = measured(bus, *words, url=proxy.url, code=1)
    assert {name: number for name, number in figures["untruths"].items() if number} == {"dropped": 1}
    assert "has the token expired?" in figures["examples"][0]
    assert figures["events"] == 100


@pytest.mark.parametrize("load", ["topic", "storm", "navigation"])
def test_a_token_that_expires_drops_all_and_the_account_is_kept(tmp_path, load):
    key = tmp_path / "key"
    key.write_text("k" * 40)
    grants = ["--subscribe", "*", "--emit", "*"]
    made = [TOWERBUS, "token", "--key", str(key), "--user", "7", *grants]
    lasting, short = (
        subprocess.run([*made, *more], capture_output=True, text=True, check=True).stdout.strip()
        for more in ([], ["--expires", "3"])
    )
    with running_towerbus(tmp_path, "--auth", f"jwt:{key}") as guarded:
        url = f"{guarded.ws_url.split('?')[0]}?token={short}"
        http = ["--http", f"{guarded.http_url}?token={lasting}", "--patience", "2", "--json", "-"]
        words = ["--url", url, *http, "--load", load, "--clients", "10", "--rate", "20", "--seconds", "5"]
        figures = json.loads(run_bench(*words, code=1).stdout)
    assert figures["untruths"]["dropped"] == 10
    assert figures["deliveries"] > 0
    assert "has the token expired?" in figures["examples"][0]


def test_one_in_flight_ends_when_the_event_does_not_come(bus):
    with LyingProxy(bus.ws_url, "drop") as proxy:
        figures = measured(bus, "--clients", "3", "--events", "50", "--patience", "1", url=proxy.url, code=1)
    assert figures["untruths"]["lost"] == 1
    assert figures["events"] < 50
    assert figures["bench"]["busy"] < 0.9, "waiting is no work"


def test_clients_come_from_the_addresses_that_are_given(bus):
    with LyingProxy(bus.ws_url) as proxy:
        sources = ["--source", "127.0.0.2", "--source", "127.0.0.3"]
        figures = measured(bus, "--clients", "10", "--events", "20", *sources, url=proxy.url)
        assert (figures["true"], figures["deliveries"], proxy.told) == (True, 200, 0)
        assert proxy.peers == {"127.0.0.2", "127.0.0.3"}


@pytest.fixture
def secured(tmp_path):
    """A server that speaks TLS only: its WebSocket's URL, the port of its HTTP listener, and options for both."""
    certificates = Certificates(tmp_path / "certificates")
    key, chain = certificates.issue("localhost")
    options = [f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}"] * 2
    with running_towerbus(tmp_path, "--listen", options[0], "--http", options[1]) as running:
        port = running.ws_url.partition("?")[0].rpartition(":")[2].partition("/")[0]
        url = ["--url", f"wss://localhost:{port}/websocket/", "--token", running.token]
        yield url, int(running.http_url.rpartition(":")[2]), str(certificates.authority)


def test_over_tls(secured):
    url, port, authority = secured
    words = [
        *url,
        "--http",
        f"https://localhost:{port}",
        "--clients",
        "30",
        "--events",
        "40",
        "--burst",
        "8",
        "--json",
        "-",
    ]
    figures = json.loads(run_bench(*words, "--ca", authority).stdout)
    assert (figures["tls"], figures["true"], figures["deliveries"]) == (True, True, 1200)
    assert json.loads(run_bench(*words, "--insecure", *V1).stdout)["deliveries"] == 1200
    assert "--ca FILE" in run_bench(*words, code=2).stderr


def test_slow_readers_get_what_tls_holds_already(secured, blocking_proxy):
    url, port, authority = secured
    http = blocking_proxy(port)
    # While the confirm is on its way a slow client reads a piece of the event: all of it is in TLS's hands then.
    http.delay(1.0, TO_CLIENT)
    words = ["--load", "slow", "--clients", "4", "--slow", "2", "--slow-rate", "1000", "--size", "3000"]
    words += ["--rate", "3", "--events", "1", "--warm-up", "0", "--patience", "5", "--json", "-"]
    figures = json.loads(run_bench(*url, "--http", f"https://localhost:{http.port}", "--ca", authority, *words).stdout)
    assert (figures["true"], figures["deliveries"]) == (True, 4)


@pytest.mark.seconds(180)
def test_with_a_broker_in_the_path(vhost, broker, tmp_path):
    with running_worker(tmp_path, vhost) as worker, running_server(tmp_path, vhost) as server:
        server.await_ready()
        pids = ["--pid", f"worker={worker.process.pid}"]
        words = ["--clients", "50", "--rate", "100", "--seconds", "1.5", *pids]
        for load in (["topic"], ["storm"], ["navigation", "--period", "0.2"], ["tower-day", "--jobs", "20"]):
            figures = measured(server, "--load", *load, *words, *V1)
            assert figures["true"] is True
            assert [part["name"] for part in figures["parts"]] == ["worker", "server"]
            assert figures["cpu_us"] == pytest.approx(sum(part["cpu_us"] for part in figures["parts"]), abs=0.01)
