"""`/metrics`, for Prometheus: what is counted anyway, read when somebody asks. No client makes a label's values."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.web.server import Request

import towerbus
from towerbus.log.interface import ILog
from towerbus.ops.health import Page

if TYPE_CHECKING:
    from towerbus.amqp.intake import AmqpIntake
    from towerbus.amqp.log import AmqpLog
    from towerbus.hub import Hub
    from towerbus.keeping import Keeping
    from towerbus.ops.canary import Canary


class Metrics(Page):
    """`/metrics`.

    Args:
        collectors: What is shown, beside the process and the build.
    """

    def __init__(self, *collectors: Collector) -> None:
        super().__init__()
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        for collector in (Build(), *collectors):
            self._registry.register(collector)

    def shown(self, request: Request) -> bytes:
        """All of them, in the text format or, to those who ask for it, as OpenMetrics."""
        encoder, content_type = choose_encoder(request.getHeader("accept") or "")
        body = encoder(self._registry)
        request.setHeader(b"Content-Type", content_type.encode())
        request.setHeader(b"Content-Length", str(len(body)).encode())
        return b"" if request.method == b"HEAD" else body


class Build(Collector):
    """Which edition runs."""

    def collect(self) -> Iterable[Metric]:
        """One line."""
        versions = {"version": towerbus.__version__, "python": platform.python_version()}
        yield InfoMetricFamily("towerbus_build", "Which edition runs", versions)


class Clients(Collector):
    """What happens between the log and the clients.

    Args:
        hub: Where it happens.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterable[Metric]:
        """Numbers of the wire, the fan-out and those who catch up."""
        yield from self._connected()
        counts, fanout = self._hub.factory.counts, self._hub.fanout
        yield _counter("deliveries", "Sends of events to a client; what it gets at once is one", fanout.deliveries)
        yield _counter("delivered_bytes", "Bytes of events and notices for clients", fanout.delivered_bytes)
        yield _counter("slow_consumers", "Clients closed for their outbox was full", counts.slow_consumers)
        yield _counter("auth_failures", "Credentials that were refused", counts.auth_failures)
        yield _counter("handshakes_refused", "WebSocket handshakes that were refused", counts.handshakes_refused)
        yield _counter("pings_unanswered", "Clients dropped for they did not answer", counts.pings_unanswered)
        deflater = self._hub.deflater
        if deflater is not None:
            yield _counter("compression_in_bytes", "Bytes of events before compression, once each", deflater.taken)
            yield _counter("compression_out_bytes", "Bytes of events after compression, once each", deflater.made)
        catchup = self._hub.catchup
        yield _gauge("catchup_clients", "Clients that get what they have missed", len(catchup))
        back = CounterMetricFamily(
            "towerbus_catchup", "Clients that came back, by what became of it", labels=["outcome"]
        )
        for outcome in ("recovered", "lost", "unavailable"):
            back.add_metric([outcome], getattr(catchup.counts, outcome))
        yield back

    def _connected(self) -> Iterator[Metric]:
        factory = self._hub.factory
        clients = dict.fromkeys(factory.spoken, 0)
        compressed = 0
        names = {spoken: name for name, spoken in factory.spoken.items()}
        waiting = blocked = 0
        for wire in tuple(factory.wires):
            if wire.session is not None:
                clients[names[wire.spoken]] += 1
                compressed += wire.deflates
            held = wire.outlet.waiting if wire.outlet is not None else 0
            waiting += held
            blocked += held > 0
        family = GaugeMetricFamily("towerbus_clients", "Connected clients, by what they speak", labels=["dialect"])
        for name, count in clients.items():
            family.add_metric([name], count)
        yield family
        yield _gauge("compressed_clients", "Connected clients that get events compressed", compressed)
        topics = sum(lane.topics for spoken in factory.spoken.values() for lane in spoken.lanes)
        yield _gauge("topics", "Topics that somebody hears, counted for each dialect, and again compressed", topics)
        yield _gauge("outbox_bytes", "Bytes that wait for clients", waiting)
        yield _gauge("outbox_clients", "Clients for which bytes wait", blocked)
        yield _gauge("stale", "1 while nothing may have come through the bus", int(factory.stale_since is not None))


class Tail(Collector):
    """The newest records.

    Args:
        log: The log that has them.
    """

    def __init__(self, log: ILog) -> None:
        self._log = log

    def collect(self) -> Iterable[Metric]:
        """Where it is, and how large."""
        tail = self._log.tail
        yield _gauge("log_begin_offset", "Offset from which on the log is in memory", tail.begin.offset)
        yield _gauge("log_end_offset", "Offset up to which the log was read", tail.end.offset)
        yield _gauge("log_term", "Term of the worker that wrote last", tail.end.term)
        yield _gauge("tail_bytes", "Bytes of events in memory, as they are counted", tail.size)
        yield _gauge("tail_records", "Records in memory", len(tail))


class Bus(Collector):
    """The way through RabbitMQ.

    Args:
        log: Where events come out.
        intake: Where they go in.
        canary: What goes all the way.
    """

    def __init__(self, log: AmqpLog, intake: AmqpIntake, canary: Canary) -> None:
        self._log = log
        self._intake = intake
        self._canary = canary

    def collect(self) -> Iterable[Metric]:
        """Numbers of the log, the connections and the canary."""
        log, canary = self._log, self._canary
        yield _counter("log_records", "Records that were read", log.records)
        yield _counter("log_events", "Events that were read", log.events)
        yield _counter("log_voided", "Records that a worker wrote which was no longer the active one", log.voided)
        yield _counter("log_unreadable", "Records that could not be read", log.unreadable)
        yield _counter("log_lost", "Times that a part of the log went by unread", log.losses)
        yield _gauge(
            "log_behind", "Offsets that the log's end is ahead; looked up while the bus is stale", canary.ahead
        )
        yield _gauge("canary_age_seconds", "Time for which nothing is known to have come through", canary.age)
        yield _gauge("canary_round_trip_seconds", "Time that the last canary took", canary.freshness.round_trip)
        yield _gauge("catchup_readers", "Readings of older records under way", log.catch_up.readers)
        yield _gauge("catchup_waiting", "Readings of older records that wait for their turn", log.catch_up.waiting)
        connected = GaugeMetricFamily("towerbus_bus_connected", "1 while there is a session", labels=["connection"])
        reconnects = CounterMetricFamily("towerbus_bus_reconnects", "Sessions that ended", labels=["connection"])
        for name, bus in (("log", log.bus), ("intake", self._intake.bus)):
            connected.add_metric([name], int(bus.state.value == "established"))
            reconnects.add_metric([name], bus.reconnects)
        yield connected
        yield reconnects
        broken = GaugeMetricFamily("towerbus_bus_broken", "1 where the way through the bus is broken", labels=["hop"])
        hop = canary.broken()
        for name in ("broker", "intake", "worker", "log", "canary"):
            broken.add_metric([name], int(hop is not None and hop.name == name))
        yield broken


class Running(Collector):
    """How the process is kept running: stops, reloads and certificates.

    Args:
        kept: What does so.
    """

    def __init__(self, kept: Keeping) -> None:
        self._kept = kept

    def collect(self) -> Iterable[Metric]:
        """Numbers of the drain and of what is read again."""
        kept = self._kept
        yield _gauge("draining", "1 while the server lets go of its clients, for it stops", int(kept.drain.active))
        reloads = CounterMetricFamily(
            "towerbus_reloads", "Times that a part was read again, by what became of it", labels=["outcome"]
        )
        reloads.add_metric(["done"], kept.reload.done)
        reloads.add_metric(["refused"], kept.reload.refused)
        yield reloads
        ends = GaugeMetricFamily(
            "towerbus_certificate_expires_seconds",
            "When the certificate of a listener ends, in seconds since the epoch of Unix",
            labels=["listener"],
        )
        for listener in kept.listeners:
            if listener.certificates is not None:
                ends.add_metric([listener.option.lstrip("-")], listener.certificates.expires)
        yield ends


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"towerbus_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"towerbus_{name}", text, value)
