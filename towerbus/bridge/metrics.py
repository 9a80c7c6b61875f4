"""What `/metrics` shows of the bridges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from towerbus.bridge.interface import Measure
from towerbus.bridge.standing import Standing

_COUNTS = {
    "messages": "Foreign messages that were taken",
    "events": "Events that were confirmed, by the bus or by the sink",
    "filtered": "Messages that the mapping passed over",
    "dead": "What was put in the dead queue",
    "lost": "Times that a part of the log went by unread",
    "failures": "Times that it failed",
}


class Shown(NamedTuple):
    """A bridge, as it is shown.

    Attributes:
        standing: How it is.
        measures: Its kind's own numbers.
    """

    standing: Standing
    measures: Callable[[], Sequence[Measure]]


class BusState(NamedTuple):
    """A connection with the bus.

    Attributes:
        name: What it is for.
        trouble: Why it can't be used now; empty where it can.
        reconnects: How often it ended.
    """

    name: str
    trouble: str
    reconnects: int


class Bridges(Collector):
    """All bridges, and their ways to the bus.

    Args:
        shown: The bridges.
        buses: The connections, as they are when they are asked for.
    """

    def __init__(self, shown: Sequence[Shown], buses: Callable[[], Sequence[BusState]]) -> None:
        self._shown = shown
        self._buses = buses

    def collect(self) -> Iterable[Metric]:
        """Numbers of each."""
        labels = ["bridge", "side", "kind"]
        up = GaugeMetricFamily("towerbus_bridge_up", "1 while the bridge is well", labels=labels)
        for each in self._shown:
            up.add_metric([*each.standing.title], int(not each.standing.trouble))
        yield up
        for name, text in _COUNTS.items():
            family = CounterMetricFamily(f"towerbus_bridge_{name}", text, labels=labels)
            for each in self._shown:
                family.add_metric([*each.standing.title], getattr(each.standing.counts, name))
            yield family
        yield from self._measures()
        connected = GaugeMetricFamily("towerbus_bus_connected", "1 while there is a session", labels=["connection"])
        reconnects = CounterMetricFamily("towerbus_bus_reconnects", "Sessions that ended", labels=["connection"])
        for bus in self._buses():
            connected.add_metric([bus.name], int(not bus.trouble))
            reconnects.add_metric([bus.name], bus.reconnects)
        yield connected
        yield reconnects

    def _measures(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for each in self._shown:
            for name, text, value in each.measures():
                family = families.get(name)
                if family is None:
                    family = families[name] = GaugeMetricFamily(f"towerbus_bridge_{name}", text, labels=["bridge"])
                family.add_metric([each.standing.title.name], value)
        yield from families.values()
