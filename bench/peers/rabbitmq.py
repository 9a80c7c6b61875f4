"""RabbitMQ: a private node, as one of the processes of a server."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from processes import begin_peak, cpu_seconds, family, peak_kb, proportional_kb

from peers.versions import of_debian

SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
TESTS = Path(__file__).resolve().parents[2] / "tests"


class Node:
    """A private RabbitMQ (tests/support), seen as one of a server's processes.

    Args:
        plugins: To enable beside its own.
        config: More lines of rabbitmq.conf, by key.
    """

    def __init__(self, plugins: Sequence[str] = (), config: Mapping[str, str] | None = None) -> None:
        if str(TESTS) not in sys.path:
            sys.path.append(str(TESTS))
        from support.broker import Broker

        self._node = Broker(plugins=plugins, config=config)
        self._node.start()
        self.url: str = self._node.url

    def cpu_seconds(self) -> float:
        """CPU time of the node so far."""
        return sum(cpu_seconds(pid) for pid in family(self._node.pid))

    def kb(self) -> int:
        """Memory of the node."""
        return sum(proportional_kb(pid) for pid in family(self._node.pid))

    def begin_peak(self) -> None:
        """Forget how much memory the node has had at the most."""
        for pid in family(self._node.pid):
            begin_peak(pid)

    def peak_kb(self) -> int:
        """The most memory that the node's processes have had since `begin_peak`, each for itself."""
        return sum(peak_kb(pid) for pid in family(self._node.pid))

    def stop(self) -> None:
        """End it, and remove all that it has written."""
        self._node.close()


def missing() -> str:
    return "" if SCRIPT.exists() else "RabbitMQ (apt-get install rabbitmq-server)"


def versions() -> dict[str, str]:
    return of_debian("rabbitmq-server", "erlang-base")
