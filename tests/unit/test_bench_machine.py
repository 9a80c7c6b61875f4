"""Which processes are the system under test, and that none is counted twice."""

import os
import subprocess
import sys

import pytest

from towerbus.bench.machine import watched
from towerbus.errors import ConfigError

LISTENS = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def family():
    """A shell, the process that it has begun, and the port where that one listens."""
    words = ["sh", "-c", 'echo $$; "$0" -c "$1"; true', sys.executable, LISTENS]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert int(shell.stdout.readline()) == shell.pid
        port = int(shell.stdout.readline())
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(shell.pid)], capture_output=True, text=True)
        yield shell.pid, int(found.stdout), port
        shell.stdin.close()


def test_who_listens_is_found(family):
    _, child, port = family
    assert [(part.name, part.pids) for part in watched([], [("server", "127.0.0.1", port)])] == [("server", (child,))]


def test_who_listens_and_descends_from_what_is_given_is_no_part_of_its_own(family):
    shell, _, port = family
    found = watched([f"all={shell}"], [("server", "127.0.0.1", port)])
    assert [(part.name, part.pids) for part in found] == [("all", (shell,))]


def test_parts_with_a_process_in_common_are_refused(family):
    shell, child, _ = family
    with pytest.raises(ConfigError, match=f"one and two have processes in common \\({child}\\)"):
        watched([f"two={shell}", f"one={child}"], [])
    assert watched([f"one={child}", f"one={shell}"], [])[0].pids == tuple(sorted((shell, child)))


def test_a_part_with_the_bench_in_it_is_refused():
    with pytest.raises(ConfigError, match="has the bench itself in it"):
        watched([f"all={os.getppid()}"], [])
