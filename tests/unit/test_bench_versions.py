"""The servers of bench/ say in which versions they are measured."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCH)])


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a program where it is found; it says something on stdout or stderr, and does something then."""

    def put(name, says, *, to=1, then="exit 0"):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\ncat >&{to} <<'END'\n{says}\nEND\n{then}\n")
        file.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return put


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """No program at all, and none of the peers' packages."""
    from peers import mosquitto, versions

    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.setattr(mosquitto, "PROGRAMS", ())
    monkeypatch.setattr(versions, "PYTHON_HOME", tmp_path / "python")
    monkeypatch.setattr(versions, "NODE_HOME", tmp_path / "node")


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ("nats-server: v2.9.10", "2.9.10"),
        ("mosquitto version 2.0.11\n\nmosquitto is an MQTT v5.0/v3.1.1/v3.1 broker.", "2.0.11"),
        ("nginx version: nginx/1.22.1", "1.22.1"),
        ("nginx version: nginx/1.27.0-rc1 (Ubuntu)", "1.27.0-rc1"),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", "7.0.15"),
        ("Python 3.11.7", "3.11.7"),
        ("v20.20.2", "20.20.2"),
        ("error while loading shared libraries: libpython3.11.so.1.0: cannot open", "not known"),
        ("\nversion 1.2.3", "not known"),
        ("", "not known"),
    ],
)
def test_a_program_says_its_version_in_its_first_line(program, says, found):
    from peers.versions import said

    program("server", says, to=2, then="exit 3")
    assert said("server", "--version") == found


def test_a_program_that_does_not_answer_is_not_waited_for(program, monkeypatch):
    from peers import versions

    monkeypatch.setattr(versions, "PATIENCE", 0.2)
    program("server", "version 1.2.3", then="exec tail -f /dev/null")
    assert versions.said("server", "--version") == "not known"


def test_debian_says_the_version_of_what_is_installed(program):
    from peers.versions import of_debian

    program("dpkg-query", "installed 1:25.2.3+dfsg-1+deb12u4")
    assert of_debian("erlang-base") == {"erlang-base": "1:25.2.3+dfsg-1+deb12u4"}
    program("dpkg-query", "config-files 7.0.15-1")
    assert of_debian("redis-server") == {"redis-server": "not known"}
    program("dpkg-query", "dpkg-query: no packages found matching nats", to=2, then="exit 1")
    assert of_debian("nats") == {"nats": "not known"}


def test_packages_are_looked_up_where_the_peers_have_theirs(tmp_path, nothing):
    from peers.versions import of_node, of_ours, of_python

    distribution = tmp_path / "python" / "lib" / "python3.11" / "site-packages" / "channels_redis-4.3.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: channels-redis\nVersion: 4.3.0\n")
    assert of_python("channels_redis", "towerbus") == {
        "python": "not known",
        "channels_redis": "4.3.0",
        "towerbus": "not known",
    }
    package = tmp_path / "node" / "node_modules" / "ws" / "package.json"
    package.parent.mkdir(parents=True)
    for content, found in (
        ('{"version": "8.23.0"}', "8.23.0"),
        ("{}", "not known"),
        ("[", "not known"),
        ("[]", "not known"),
    ):
        package.write_text(content)
        assert of_node("ws", "engine.io") == {"node": "not known", "ws": found, "engine.io": "not known"}
    assert of_ours("towerbus", "channels_redis") == {
        "towerbus": version("towerbus"),
        "channels_redis": "not known",
    }


def test_each_server_names_what_it_consists_of_also_where_nothing_is_installed(nothing):
    from generator import FLAGS
    from peers import PEERS

    found = {name: dict(peer.versions()) for name, peer in PEERS.items()}
    assert all(found.values())
    ours = {name: version(name) for name in ("towerbus", "Twisted", "autobahn", "pika")}
    assert found.pop("towerbus") == ours
    broker = {"rabbitmq-server": "not known", "erlang-base": "not known"}
    assert found.pop("towerbus-rabbitmq") == {**ours, **broker}
    for name in ("floor", "floor-joined"):
        assert found.pop(name) == {"compiler": "not known", "flags": " ".join(FLAGS)}
    assert {what for each in found.values() for what in each.values()} == {"not known"}
    assert {"daphne", "Twisted", "redis-server"} < found["channels"].keys()
    assert {"uvicorn", "websockets", "redis-server"} < found["uvicorn"].keys()
    assert found["nchan"].keys() == {"nginx", "libnginx-mod-nchan"}
    assert found["ws"].keys() == {"node", "ws"}


def test_the_floor_names_its_compiler(program):
    from peers import PEERS

    program("cc", "cc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation, Inc.")
    assert PEERS["floor"].versions()["compiler"] == "cc (Debian 12.2.0-14+deb12u1) 12.2.0"
