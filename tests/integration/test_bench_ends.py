"""How a run of `towerbus bench` ends before its time: by a signal, a server that is frozen, a process that is killed."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support.benching import TOWERBUS
from support.proxy_lies import LyingProxy
from support.running import environment, finish, running_towerbus, start, wait_for
from websockets.sync.client import connect

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    with running_towerbus(tmp_path_factory.mktemp("bus")) as running:
        yield running


@pytest.fixture
def benching(bus, tmp_path):
    """A bench of two processes that would go on for a minute, and their ids."""
    urls = ["--url", bus.ws_url, "--http", bus.http_url]
    benching = start(
        [TOWERBUS, "bench", *urls, "--clients", "20", "--rate", "20", "--seconds", "60", "--processes", "2"], tmp_path
    )

    def children():
        found = subprocess.run(
            ["ps", "--no-headers", "-o", "pid", "--ppid", str(benching.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in found.stdout.split()]

    wait_for(lambda: len(children()) == 2, 20, "the processes with the clients")
    pids = children()
    yield benching, pids
    benching.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20, "their end")


def begun(bus, *words, url=None, events=5):
    """A bench that has emitted so many events by now, as a client of our own knows that hears the same topic."""
    urls = ["--url", url or bus.ws_url, "--http", bus.http_url, "--mark", "ours."]
    words = [TOWERBUS, "bench", *urls, "--clients", "20", "--warm-up", "0", "--json", "-", *words]
    with connect(bus.ws_url) as connection:
        connection.recv(5)
        connection.send(json.dumps({"groups": {"jobs": ["ours.status_changed"]}}))
        connection.recv(5)
        benching = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
        )
        for _ in range(events):
            connection.recv(20)
    return benching


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "load", [["topic", "--rate", "20"], ["storm", "--rate", "20"], ["topic", "--events", "1000000"]]
)
def test_what_a_signal_ends_is_accounted_for_up_to_there(bus, how, load):
    benching = begun(bus, "--load", *load)
    benching.send_signal(how)
    # As timeout(1) does: once to the process and once to its group.
    os.killpg(benching.pid, how)
    code, out, err = finish(benching, 30)
    assert (code, err) == (128 + how, "")
    figures = json.loads(out)
    assert figures["cut_short"] == f"interrupted ({how.name})"
    assert figures["true"] is True
    assert 5 <= figures["events"] < figures["planned"]
    # One more may be under way.
    assert 0 <= figures["deliveries"] - 20 * figures["events"] <= 20


def test_what_was_untrue_before_a_signal_is_told(bus):
    with LyingProxy(bus.ws_url, "drop") as proxy:
        benching = begun(bus, "--rate", "20", "--seconds", "60", url=proxy.url, events=20)
        assert proxy.told == 1
        benching.send_signal(signal.SIGINT)
        code, out, err = finish(benching, 30)
    figures = json.loads(out)
    assert (code, err) == (1, "")
    assert figures["cut_short"] == "interrupted (SIGINT)"
    assert figures["untruths"]["lost"] == 1


def test_a_signal_while_clients_come_says_how_far_they_are(bus):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/websocket/"
        words = [TOWERBUS, "bench", "--url", url, "--http", bus.http_url, "--clients", "5"]
        benching = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        with silent.accept()[0]:
            benching.send_signal(signal.SIGINT)
            code, out, err = finish(benching, 30)
    assert (code, out) == (130, "")
    assert err.startswith("Error: interrupted (SIGINT): nothing was measured; ")


def test_the_last_events_are_not_waited_for_after_a_signal(bus):
    """A client gets nothing more: with all events emitted the bench would wait for them as long as its patience is."""
    with LyingProxy(bus.ws_url, "starve") as proxy:
        words = ["--rate", "100", "--events", "20", "--patience", "100000"]
        benching = begun(bus, *words, url=proxy.url, events=20)
        benching.send_signal(signal.SIGINT)
        code, out, err = finish(benching, 60)
    figures = json.loads(out)
    assert (code, err) == (1, "")
    assert figures["cut_short"].startswith("interrupted (SIGINT)")
    assert {name for name, number in figures["untruths"].items() if number} == {"lost"}


def test_an_emit_is_given_no_more_time_than_the_patience_is(tmp_path):
    with running_towerbus(tmp_path) as bus:
        benching = begun(bus, "--rate", "20", "--seconds", "60", "--patience", "1")
        bus.process.send_signal(signal.SIGSTOP)
        code, out, _ = finish(benching, 60)
        bus.process.send_signal(signal.SIGCONT)
    figures = json.loads(out)
    assert code == 1
    assert "not confirmed within 1 s" in figures["examples"][0]
    assert figures["cut_short"].endswith("not confirmed")
    assert figures["events"] < figures["planned"] == 1200


def test_its_processes_do_not_outlive_it(benching):
    benching[0].kill()
    assert finish(benching[0], 20)[0] == -signal.SIGKILL


def test_a_process_with_clients_that_is_killed_is_told_of(benching):
    os.kill(benching[1][0], signal.SIGKILL)
    code, _, err = finish(benching[0], 20)
    assert code == 2
    assert "a process with clients has ended" in err
