"""Ports that nobody else takes."""

import socket
import subprocess
import sys
from pathlib import Path

from support import ports
from support.ports import Ports


def test_blocks_are_each_ones_own_and_free(monkeypatch):
    monkeypatch.setattr(ports, "_blocks", lambda: range(20_000, 20_000 + 8 * ports.BLOCK, ports.BLOCK))
    one, other = Ports(), Ports()
    assert set(one.numbers).isdisjoint(other.numbers)
    for number in (*one.numbers, *other.numbers):
        socket.create_server(("127.0.0.1", number)).close()
    one.release()
    third = Ports()
    assert third.numbers == one.numbers
    third.release()
    other.release()


def test_a_block_in_which_somebody_listens_is_left_alone(monkeypatch):
    first, other = Ports(), Ports()
    monkeypatch.setattr(ports, "_blocks", lambda: [first.numbers[0], other.numbers[0]])
    # Released under a listener: nobody else's run can take it in between.
    with socket.create_server(("127.0.0.1", first.numbers[3])):
        first.release()
        other.release()
        second = Ports()
    assert second.numbers == other.numbers
    second.release()


def test_they_are_outside_the_range_of_outgoing_connections():
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    held = [Ports() for _ in range(20)]
    if low > 20_000:
        assert not [number for block in held for number in block.numbers if low <= number <= high]
    for block in held:
        block.release()


def test_another_process_does_not_get_them(monkeypatch):
    held = Ports()
    script = (
        "from support import ports\n"
        f"ports._blocks = lambda: [{held.numbers[0]}]\n"
        "try: ports.Ports()\n"
        "except AssertionError as error: print(error)\n"
    )
    asked = [sys.executable, "-c", script]
    tests = str(Path(__file__).parents[1])
    assert "no free ports" in subprocess.run(asked, cwd=tests, capture_output=True, text=True, check=True).stdout
    held.release()
    assert not subprocess.run(asked, cwd=tests, capture_output=True, text=True, check=True).stdout
