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


def test_twistd_lists_the_command(tmp_path):
    assert "towerbus " in run("twistd", "--help", cwd=tmp_path)


def test_its_help_names_every_option(tmp_path):
    from towerbus.config import OPTIONS

    text = run("twistd", "towerbus", "--help", cwd=tmp_path)
    for option in OPTIONS:
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
    ("--bus", "amqp://localhost"): ["--bus", "memory:"],
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
