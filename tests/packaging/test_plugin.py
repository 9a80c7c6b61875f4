"""The command is there from any directory, and what it says is for people."""

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def run(*words, cwd, code=0, **variables):
    env = {name: value for name, value in os.environ.items() if not name.startswith("TOWERBUS_")} | variables
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]], cwd=cwd, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


COMMANDS = ["towerbus", "towerbus-server", "towerbus-worker", "towerbus-bridge"]


def test_twistd_lists_the_commands(tmp_path):
    text = run("twistd", "--help", cwd=tmp_path)
    for command in COMMANDS:
        assert f"{command} " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_its_help_names_every_option(tmp_path, command):
    from towerbus.options import options

    text = run("twistd", command, "--help", cwd=tmp_path)
    for option in options(command):
        assert f"--{option.name}=" in text


def test_no_package_is_made_of_twisteds_own():
    import twisted

    assert "internet" in os.listdir(Path(twisted.__file__).parent)
    files = [str(file) for file in distribution("towerbus").files or ()]
    assert not [file for file in files if file in {"twisted/__init__.py", "twisted/plugins/__init__.py"}]


WRONG = {
    ("--outbox", "many"): ["--outbox", "'many'", "whole number"],
    ("--ping-interval", "0"): ["--ping-interval", "seconds"],
    ("--listen", "tcp:http:x"): ["--listen", "tcp:http:x"],
    ("--listen", "nonsense"): ["--listen", "nonsense"],
    ("--http", "tcp:99999999"): ["--http"],
    ("--bus", "amqp://localhost"): ["--bus", "memory:", "towerbus-server"],
    ("--bus", "nonsense"): ["--bus", "nonsense", "sqlite:PATH"],
    ("--bus", "sqlite:/nowhere/log"): ["--bus", "/nowhere/log"],
    ("--auth", "nonsense"): ["nonsense", "jwt:"],
    ("--auth", "jwt:/nowhere/key"): ["/nowhere/key"],
    ("--auth", "tokens:/nowhere/tokens"): ["/nowhere/tokens"],
    ("--config", "/nowhere/file.toml"): ["/nowhere/file.toml", "can't be read"],
    ("--nonsense",): ["nonsense"],
    ("--max-frame",): ["max-frame"],
    ("surplus",): [],
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_options_are_a_message_and_exit_code_1(words, tmp_path):
    text = run("twistd", "-n", "--pidfile=", "towerbus", *words, cwd=tmp_path, code=1)
    for part in WRONG[words]:
        assert part in text


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_options_are_one_line(words, tmp_path):
    text = run("twistd", "-n", "--pidfile=", "towerbus", "--http", "tcp:0", *words, cwd=tmp_path, code=1)
    # A bind is tried when the log has begun.
    (line,) = [line for line in text.splitlines() if "#info]" not in line and "starting on" not in line]
    assert line.partition(" [stderr#error] ")[2].startswith("towerbus: ") or line.startswith("towerbus: ")
    assert ".;" not in line


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("towerbus", "wanted memory: or sqlite:PATH"),
        ("towerbus-server", "wanted amqp://USER:PASSWORD@HOST/VHOST or amqps://..."),
        ("towerbus-worker", "wanted amqp://USER:PASSWORD@HOST/VHOST or amqps://..."),
    ],
)
def test_a_bus_that_is_none_is_answered_with_what_the_command_takes(tmp_path, command, wanted):
    text = run("twistd", "-n", "--pidfile=", command, "--bus", "amqqp://u:secret@h/", cwd=tmp_path, code=1)
    assert text == f"{command}: --bus: got 'amqqp://...@h/', {wanted}\n"
    said = " ".join(run("twistd", command, "--help", cwd=tmp_path).split())
    assert ("memory:" in said) is (command == "towerbus")


def test_a_wrong_environment_is_named(tmp_path):
    text = run("twistd", "-n", "--pidfile=", "towerbus", cwd=tmp_path, code=1, TOWERBUS_OUTBOX="x")
    assert "TOWERBUS_OUTBOX" in text


def test_a_port_that_is_taken_is_a_message_and_exit_code_1(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = run(
            "twistd",
            "-n",
            "--pidfile=",
            "towerbus",
            "--listen",
            f"tcp:{port}:interface=127.0.0.1",
            cwd=tmp_path,
            code=1,
        )
    assert f"tcp:{port}" in text
    assert "in use" in text
    assert "--listen" in text
