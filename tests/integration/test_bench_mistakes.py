"""What `towerbus bench` says where options, server or surroundings are not as they must be, and where a run shows little."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from support.benching import TOWERBUS, run_bench
from support.proxy_lies import LyingProxy
from support.running import environment, running_towerbus

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    with running_towerbus(tmp_path_factory.mktemp("bus")) as running:
        yield running


@pytest.mark.parametrize(
    ("words", "part"),
    [
                (["--url", "ws://127.0.0.1:1/websocket/"], "--http"),
        (["--url", "http://h"], "not the URL of a WebSocket"),
        (["--url", "ws://no.such.host.invalid:8051/"], "no.such.host.invalid"),
        (["--load", "storm", "--dialect", "tower"], "towerbus.v1"),
        (["--load", "slow", "--burst", "3"], "--burst"),
        (["--load", "navigation", "--topics", "3"], "--topics"),
        (["--each", "3"], "--each"),
        (["--load", "idle", "--busy", "2000"], "--busy"),
        (["--pid", "worker"], "NAME=PID"),
        (["--pid", "worker=999999999"], "there is no process 999999999"),
        (["--pid", "a=1", "--pid", "a=1"], "'a=1' is given twice"),
        (["--mark", "a b"], "--mark: types that begin with 'a b' can't be"),
        (["--mark", "x" * 85], "is longer than 99 characters"),
        (["--processes", "4", "--clients", "3"], "--processes: there are only 3 clients"),
        (["--load", "storm", "--events", "2"], "--events: a storm"),
        (["--url", "ws://127.0.0.1:8051/?token=a", "--token", "b"], "--token is not the token that --url has"),
        (["--http", "http://127.0.0.1:1"], "--http: can't connect to http://127.0.0.1:1/emit: Connection refused"),
        (["--clients", "100000000"], "--processes"),
        (["--clients", "70000", "--processes", "100", "--source", "127.0.0.1"], "--source"),
        (["--source", "::1", "--clients", "2"], "same kind"),
        (["--token", "a b"], "copied whole"),
        (["--source", "here"], "got 'here'"),
        (["--source", "192.0.2.1"], "192.0.2.1 is not an address of this machine"),
        (["--pid", "all=1"], "has the bench itself in it"),
        (["--rate", "nan"], "not a finite number"),
        (["--rate", "10", "--seconds", "inf"], "not a finite number"),
        (["--patience", "nan"], "not a finite number"),
        (["--rate", "1e9"], "10,000,000,000 events are more than a run may have"),
        (["--rate", "1e308", "--seconds", "1e308"], "events are more than a run may have"),
        (["--warm-up", "100000000"], "give a lower --warm-up"),
        (["--topics", "100000000"], "--topics"),
        (["--load", "tower-day", "--jobs", "100000000"], "--jobs"),
        (["--jobs", "3"], "it is for tower-day"),
        (["--load", "slow", "--busy", "3"], "it is for idle"),
        (["--seconds", "3"], "give --rate"),
        (["--events", "3", "--rate", "10", "--seconds", "3"], "give one of them"),
        (["--insecure"], "wss:"),
        (["--json", "/nonexistent/result.json"], "--json: '/nonexistent/result.json' can't be written"),
        (["--json", ""], "--json: '' can't be written"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_of_error_and_no_untruth(words, part):
    assert part in run_bench(*words, code=2).stderr


def test_more_topics_than_a_client_may_have_are_told_in_the_servers_words(bus):
    words = ["--clients", "3", "--topics", "1001", "--each", "1001", "--http", bus.http_url, "--patience", "60"]
    said = run_bench("--url", bus.ws_url, *words, code=2).stderr
    assert "refused: client 0: " in said
    assert "Give a lower --each" in said
    words = ["--clients", "3", "--topics", "900", "--each", "900", "--mark", "x" * 70, "--http", bus.http_url]
    said = run_bench("--url", bus.ws_url, *words, code=2).stderr
    assert "was let in, and not subscribed: the server closed with 1009" in said
    assert "a shorter --mark" in said


def test_events_of_which_none_is_confirmed_are_no_untruth_but_a_run_that_cant_be_done(bus):
    http = bus.http_url.replace("http:", "https:")
    words = ["--url", bus.ws_url, "--clients", "3", "--insecure", "--http", http]
    assert "does that port speak TLS?" in run_bench(*words, code=2).stderr
    words = ["--url", bus.ws_url, "--clients", "3", "--http", f"{bus.http_url}?token=another"]
    said = f"--http: no event was ever confirmed at {bus.http_url}/emit: the token is not known"
    assert said in run_bench(*words, code=2).stderr
    words = ["--url", bus.ws_url, "--clients", "3", "--http", f"{bus.http_url}/elsewhere"]
    assert f"at {bus.http_url}/elsewhere/emit: " in run_bench(*words, code=2).stderr


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(bus):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/websocket/"
        done = run_bench("--url", url, "--http", bus.http_url, "--clients", "5", "--patience", "0.5", code=2)
    assert "clients are still waiting for the server after 0.5 s without any progress" in done.stderr


@pytest.mark.parametrize(("files", "advice"), [(100, False), (300, True)])
def test_a_limit_of_files_is_told_with_what_helps(files, advice):
    """More processes help only where each may open more than it needs beside its clients."""
    limited = ["sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', TOWERBUS, "bench", "--clients", "200", "--token", "x"]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert done.returncode == 2
    assert f"may open {files} files" in done.stderr
    assert "raise the limit" in done.stderr
    assert ("--processes 2" in done.stderr) == advice


def test_what_is_refused_is_said(bus, tmp_path):
    url, http = bus.ws_url.split("?")[0], ["--http", bus.http_url, "--clients", "3"]
    assert "is the token right" in run_bench("--url", url, "--token", "x", *http, code=2).stderr
    assert (
        "404" in run_bench("--url", url.replace("websocket", "elsewhere"), "--token", bus.token, *http, code=2).stderr
    )
    key = tmp_path / "key"
    key.write_text("k" * 40)
    words = ["token", "--key", str(key), "--user", "7"]
    token = subprocess.run([TOWERBUS, *words], capture_output=True, text=True, check=True).stdout.strip()
    with running_towerbus(tmp_path, "--auth", f"jwt:{key}") as guarded:
        common = [
            "--url",
            f"{guarded.ws_url.split('?')[0]}?token={token}",
            "--http",
            guarded.http_url,
            "--clients",
            "3",
        ]
        assert "grant" in run_bench(*common, code=2).stderr
        said = run_bench(*common, "--load", "tower-day", code=2).stderr
        assert "denies job_events-" in said
        assert "--subscribe" in said


def test_clients_and_emits_may_have_tokens_of_their_own(bus):
    bare = bus.ws_url.split("?")[0]
    http = f"{bus.http_url}?token={bus.token}"
    assert (
        "the token is not known" in run_bench("--url", bus.ws_url, "--http", f"{bus.http_url}?token=x", code=2).stderr
    )
    done = run_bench("--url", bare, "--token", "x", "--http", http, "--clients", "3", code=2)
    assert "does not let the clients in: is the token right" in done.stderr
    assert "there is none" in run_bench("--url", bare, "--http", http, "--clients", "3", code=2).stderr
    assert "all true" in run_bench("--url", bus.ws_url, "--http", http, "--clients", "3", "--events", "3").stdout


def test_events_larger_than_the_server_takes_are_told_with_the_option(bus):
    words = ["--url", bus.ws_url, "--http", bus.http_url, "--clients", "3"]
    assert "give a lower --size or --burst" in run_bench(*words, "--size", "2000000", code=2).stderr
    assert "give a lower --size or --burst" in run_bench(*words, "--size", "200000", "--burst", "100", code=2).stderr


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["--load", "idle", "--busy", "3"], "no client is idle"),
        (["--load", "slow", "--slow", "3", "--seconds", "0.1"], "all clients are slow"),
        (["--load", "storm", "--clients", "200", "--events", "9", "--rate", "100000"], "the second cut came before"),
    ],
)
def test_a_run_that_shows_little_says_so(bus, words, note):
    assert note in run_bench("--url", bus.ws_url, "--http", bus.http_url, "--clients", "3", *words).stdout


@pytest.mark.parametrize(("words", "what"), [([], "standard output"), (["--json", "/dev/full"], "--json: '/dev/full'")])
def test_figures_that_cant_be_written_are_told_of(bus, words, what):
    words = [TOWERBUS, "bench", "--url", bus.ws_url, "--http", bus.http_url, "--clients", "3", "--events", "3", *words]
    with Path("/dev/full").open("w") as full:
        where = full if what == "standard output" else subprocess.DEVNULL
        done = subprocess.run(words, stdout=where, stderr=subprocess.PIPE, text=True, timeout=60, env=environment())
    assert done.returncode == 2
    assert f"{what} can't be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_that_cant_be_written_are_untrue_all_the_same(bus):
    with LyingProxy(bus.ws_url, "drop") as proxy:
        words = ["--url", proxy.url, "--http", bus.http_url, "--clients", "3", "--events", "9", "--patience", "1"]
        said = run_bench(*words, "--json", "/dev/full", code=1).stderr
    assert "not true: lost: client" in said
    assert "--json: '/dev/full' can't be written" in said


def test_looking_whether_figures_can_be_written_leaves_everything_as_it_was(bus, tmp_path):
    """A pipe that nobody reads yet, a link to what is not there, and a run that can't be done."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    link.symlink_to(target)
    for file in (pipe, link):
        words = ["--url", "ws://127.0.0.1:1/", "--http", bus.http_url, "--json", str(file)]
        assert "can't connect" in run_bench(*words, code=2).stderr
    assert (pipe.is_fifo(), link.is_symlink(), target.exists()) == (True, True, False)
    run_bench("--url", bus.ws_url, "--http", bus.http_url, "--clients", "3", "--events", "3", "--json", str(link))
    assert link.is_symlink()
    assert json.loads(target.read_text())["deliveries"] == 9
