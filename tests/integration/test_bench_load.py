"""The load generator of bench/ finds every untruth, whatever an event's frame looks like."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from support.framed_server import FRAMINGS, TORN, FramedServer, ResumingServer, deflated

BENCH = Path(__file__).parents[2] / "bench"
FAULTS = ("lost", "repeated", "disordered", "damaged", "strays", "gone", "refused")
FOUND = {
    "drop": {"lost": 1},
    "repeat": {"repeated": 1},
    "swap": {"disordered": 1},
    "change": {"damaged": 1},
    "cut": {"damaged": 1, "lost": 1},
}
"""What it says of a lie."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(not Path("/usr/include/zlib.h").exists(), reason="no zlib1g-dev"),
]


@pytest.fixture
def load(monkeypatch):
    """Start a load generator with two subscribed clients of a server."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCH)])
    from generator import Generator

    started = []

    def start(server, framing="plain", kind="topic", topics=0, **more):
        options = {"--ws-port": server.ws_port, "--pub-port": server.control_port, "--patience": 1}
        words = {**options, "--framing": framing, "--head": "GET / HTTP/1.1\\x0d\\x0a"}
        words |= {"--pub-suffix": "\\x0a", "--own-suffix": "\\x0a"}
        flags = [f"--{name.replace('_', '-')}" for name, word in more.items() if word is True]
        words |= {f"--{name.replace('_', '-')}": word for name, word in more.items() if word is not True}
        generator = Generator([str(word) for pair in words.items() for word in pair] + flags)
        started.append(generator)
        generator.connect(2, kind, topics)
        generator.subscribe(2, kind, topics)
        return generator

    yield start
    for generator in started:
        generator.__exit__()


def faults(answer):
    return {name: answer[name] for name in FAULTS if answer[name]}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_the_truth_is_found_true(load, framing):
    with FramedServer(framing) as server:
        answer = load(server, framing).ask("run 4 4")
    assert (answer["deliveries"], faults(answer)) == (8, {})


@pytest.mark.parametrize("framing", TORN)
def test_packets_may_go_over_the_ends_of_messages(load, framing):
    with FramedServer(framing, torn=True) as server:
        answer = load(server, framing).ask("run 4 4")
    assert (answer["deliveries"], faults(answer)) == (8, {})


@pytest.mark.parametrize("lie", FOUND)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_lies_are_found(load, framing, lie):
    with FramedServer(framing, lie) as server:
        assert faults(load(server, framing).ask("run 4 4")) == FOUND[lie]


def test_what_others_should_have_got_is_found(load):
    with FramedServer("plain", together=1) as server:
        answer = load(server, kind="own", topics=2).ask("day 0 40 2 0.1")
    assert (answer["deliveries"], faults(answer)) == (4, {"strays": 4})


def test_idle_clients_are_to_hear_nothing(load):
    with FramedServer("plain") as server:
        generator = load(server, kind="idle")
        generator.connect(3)
        generator.subscribe(3)
        answer = generator.ask("run 4 4")
    assert (answer["deliveries"], faults(answer)) == (4, {"strays": 8})


@pytest.mark.parametrize(("lie", "fate"), [("none", "whole"), ("drop", "silent"), ("nothing", "silent")])
def test_the_fate_of_slow_readers_is_told(load, lie, fate):
    with FramedServer("plain", lie) as server:
        generator = load(server)
        assert generator.ask("stall 2") == {"stalled": 1}
        answer = generator.ask("run 4 4")
        assert (answer["deliveries"], faults(answer)) == (4, {})
        told = generator.ask("thaw")
    assert {name: told[name] for name in ("whole", "cut", "silent")} == {"whole": 0, "cut": 0, "silent": 0, fate: 1}


def resuming(load, server):
    words = '{"groups":{"jobs":["status_changed"]}}'
    back = '{"groups":{"jobs":["status_changed"]},"since":"^^^^^^"}'
    return load(server, "towerbus.v1", greetings=1, first=words, replies=1, back=back, back_replies=2)


def test_those_who_come_back_get_what_they_missed(load):
    with ResumingServer() as server:
        generator = resuming(load, server)
        generator.ask("run 2 4")
        for missed in (7, 0, 30):
            answer = generator.ask(f"storm {missed} 20 2")
            assert faults(answer) == {}
            assert {name: answer[name] for name in ("cut", "back", "missed", "told")} == {
                "cut": 2,
                "back": 2,
                "missed": 0,
                "told": 0,
            }
            assert answer["deliveries"] == 2 * answer["events"] >= 2 * (missed + 1)


@pytest.mark.parametrize(
    ("lie", "found"),
    [("forget", {"lost": 2}), ("nothing", {"lost": 14}), ("repeat", {"repeated": 2}), ("swap", {"disordered": 2})],
)
def test_lies_to_those_who_come_back_are_found(load, lie, found):
    with ResumingServer(lie) as server:
        answer = resuming(load, server).ask("storm 7 0 2")
    assert (faults(answer), answer["missed"]) == (found, 0)


def test_who_is_told_that_events_are_lost_is_no_fault(load):
    with ResumingServer("nothing", tells=True) as server:
        answer = resuming(load, server).ask("storm 7 0 2")
    assert (faults(answer), answer["missed"], answer["told"]) == ({}, 14, 2)


def test_what_servers_without_positions_lose_is_counted(load):
    with FramedServer("plain", together=1) as server:
        generator = load(server)
        answer = generator.ask("storm 7 0 2")
        assert (faults(answer), answer["missed"], answer["back"]) == ({}, 14, 2)
        assert faults(generator.ask("run 1 4")) == {}


def test_compressed_events_are_looked_into(load):
    with FramedServer("plain", compress=deflated) as server:
        answer = load(server, deflate=True, job_events=True, size=2000).ask("run 4 40")
    assert (answer["deliveries"], faults(answer)) == (80, {})
    assert 0 < answer["wire"] < 80 * 600


def test_lies_in_compressed_events_are_found(load):
    with FramedServer("plain", "change", compress=deflated) as server:
        assert faults(load(server, deflate=True, job_events=True, size=2000).ask("run 4 4")) == {"damaged": 1}


@pytest.mark.parametrize("broken", [lambda text: deflated(text)[:-9], lambda text: b"\xff" + deflated(text)])
def test_what_can_not_be_inflated_is_damage(load, broken):
    with FramedServer("plain", compress=broken) as server:
        answer = load(server, deflate=True).ask("run 4 4")
    assert faults(answer) == {"damaged": 8, "lost": 8}


def test_a_server_that_does_not_compress_is_refused(load):
    with FramedServer("plain") as server, pytest.raises(RuntimeError, match="ended"):
        load(server, deflate=True)
