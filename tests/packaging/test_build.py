"""The wheel can be built with a compiler and without one; with one, the send loop in C is in it, and is used."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from towerbus.wire import eager

TOP = Path(__file__).resolve().parents[2]
HEADER = Path(sysconfig.get_paths()["include"]) / "Python.h"
compiler = pytest.mark.skipif(
    not (shutil.which("cc") and HEADER.exists()),
    reason="no C compiler or no Python headers here: the send loop in C is neither built nor tested",
)


def build(tmp_path, **variables):
    """The wheel of a copy of the source."""
    source, made = tmp_path / "source", tmp_path / "made"
    for name in ("towerbus", "twisted"):
        shutil.copytree(TOP / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, source)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", made, source],
        env=os.environ | variables, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    (wheel,) = made.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    return wheel.name, tmp_path / "installed"


def says(directory, cwd):
    """What an interpreter says that finds the wheel's content first."""
    code = (
        "import socket, sys; sys.path.insert(0, sys.argv[1]);"
        "from towerbus.wire import eager; a, b = socket.socketpair(); outlet = type('O', (), {'eager': a});"
        "print(eager.__file__.startswith(sys.argv[1]), eager.COMPILED, eager.send_each([outlet], b'hi'), b.recv(9))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(directory)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(maxsplit=2)


@compiler
def test_the_towerbus_that_is_tested_here_has_the_loop_in_c():
    assert eager.COMPILED


@compiler
def test_a_wheel_made_with_a_compiler_has_the_loop_in_c(tmp_path):
    name, installed = build(tmp_path)
    assert "-cp311-abi3-" in name
    assert (installed / "towerbus/wire/_eager.abi3.so").exists()
    assert says(installed, tmp_path) == ["True", "True", "[] b'hi'\n"]


def test_a_wheel_made_without_a_compiler_does_the_same_in_python(tmp_path):
    _, installed = build(tmp_path, CC="/bin/false")
    assert not list(installed.rglob("*.so"))
    assert says(installed, tmp_path) == ["True", "False", "[] b'hi'\n"]
