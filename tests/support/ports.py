"""Ports for servers that are to come back on the same ones."""

import random
import socket
from pathlib import Path

BLOCK = 8


class Ports:
    """A block of free ports on 127.0.0.1 that stays this process's while it lives.

    Ports of the system's choice will not do: a server that is down for a moment would find its port taken by anybody's
    outgoing connection. These lie outside the range that the system chooses from, and the block is held by a socket in the
    abstract namespace, which no crash can leave behind.

    Attributes:
        numbers: The ports, in order.
    """

    def __init__(self):
        for first in _blocks():
            self._hold = socket.socket(socket.AF_UNIX)
            try:
                self._hold.bind(f"\0towerbus-test-ports-{first}")
            except OSError:  # another test run's
                self._hold.close()
                continue
            self.numbers = range(first, first + BLOCK)
            if all(map(_is_free, self.numbers)):
                return
            self.release()
        raise AssertionError("there are no free ports")

    def release(self):
        self._hold.close()


def _blocks():
    """The first ports of the blocks, in an order of chance."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    blocks = range(10_000, 65_000, BLOCK)
    outside = [first for first in blocks if first + BLOCK <= low or first > high] or blocks
    # Not the generator that hypothesis and tests seed: two runs with one seed would try the same ports.
    return random.SystemRandom().sample(outside, len(outside))


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or what a former server left would count
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
