"""What those who watch over a process are answered."""

import http.client
import json

import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from support.wires import DEFLATE, Server
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread

from towerbus import __version__
from towerbus.event import event
from towerbus.hub import Hub
from towerbus.ops.health import Alive, Ready
from towerbus.ops.metrics import Clients, Metrics, Tail
from towerbus.web import site
from towerbus.wire.deflate import Deflater


class Pages:
    """Pages on a real port."""

    def __init__(self, **pages):
        self.site = site({name.encode(): page for name, page in pages.items()}, reactor)

    async def __aenter__(self):
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.site)
        return self

    async def __aexit__(self, *reason):
        await self.port.stopListening()

    async def get(self, path, method="GET", **headers):
        return await deferToThread(self._ask, path, method, headers)

    def _ask(self, path, method, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port.getHost().port, timeout=10)
        try:
            connection.request(method, path, headers={"Connection": "close", **headers})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


@pytest_twisted.ensureDeferred
async def test_a_process_that_turns_is_alive_whatever_else():
    async with Pages(healthz=Alive()) as pages:
        status, headers, body = await pages.get("/healthz")
        assert (status, json.loads(body)) == (200, {"alive": True})
        assert headers["Cache-Control"] == "no-store"


@pytest_twisted.ensureDeferred
async def test_ready_follows_what_is_broken():
    broken = {}
    async with Pages(readyz=Ready(lambda: broken, lambda: {"canary": {"age": 1.5}})) as pages:
        status, _, body = await pages.get("/readyz")
        assert (status, json.loads(body)) == (200, {"ready": True, "broken": {}, "canary": {"age": 1.5}})
        broken["worker"] = "it is silent"
        status, headers, body = await pages.get("/readyz")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["broken"] == {"worker": "it is silent"}


@pytest_twisted.ensureDeferred
async def test_heads_have_no_body_and_nothing_else_is_understood(logged_failures):
    async with Pages(readyz=Ready(dict, dict), metrics=Metrics()) as pages:
        for path in ("/readyz", "/metrics"):
            status, headers, body = await pages.get(path, "HEAD")
            assert (status, body) == (200, b"")
            assert int(headers["Content-Length"]) > 10
            status, headers, _ = await pages.get(path, "POST")
            assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert (await pages.get("/readyz/more"))[0] in {200, 404}


def values(body):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


@pytest_twisted.ensureDeferred
async def test_metrics_tell_of_clients_events_and_the_edition():
    server = await Server().start()
    hub = Hub(server.factory, server.fanout, server.catchup, None, ())
    async with Pages(metrics=Metrics(Clients(hub), Tail(server.log))) as pages:
        await server.subscribed()
        client = await server.subscribed()
        await server.client(path="/websocket/?token=bad")
        await server.client(path="/elsewhere")
        await server.emit(b'{"n":1}')
        await client.until(1)
        status, headers, body = await pages.get("/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain")
        found = values(body)
        assert found["towerbus_clients", ("dialect", "tower")] >= 2
        assert found["towerbus_clients", ("dialect", "towerbus.v1")] == 0
        assert found["towerbus_topics",] == 1
        assert found["towerbus_deliveries_total",] == 2
        assert found["towerbus_auth_failures_total",] == 1
        assert found["towerbus_handshakes_refused_total",] == 1
        assert found["towerbus_log_end_offset",] == 0
        assert found["towerbus_tail_records",] == 1
        assert found["process_open_fds",] > 3
        (build,) = [key for key in found if key[0] == "towerbus_build_info"]
        assert ("version", __version__) in build
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_metrics_tell_what_compression_saves():
    server = await Server(deflater=Deflater()).start()
    hub = Hub(server.factory, server.fanout, server.catchup, None, (), server.deflater)
    async with Pages(metrics=Metrics(Clients(hub))) as pages:
        plain = await server.subscribed()
        clients = [await server.subscribed(headers=[DEFLATE]) for _ in range(2)]
        await server.emit(b'{"x":"%s"}' % (b"x" * 1000))
        for client in (plain, *clients):
            await client.until(1)
        found = values((await pages.get("/metrics"))[2])
        assert found["towerbus_compressed_clients",] == 2
        assert found["towerbus_compression_in_bytes_total",] == 1008
        assert 0 < found["towerbus_compression_out_bytes_total",] < 100
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_bytes_that_wait_for_a_client_are_told():
    server = await Server().start()
    hub = Hub(server.factory, server.fanout, server.catchup, None, ())
    client = await server.subscribed()
    client.transport.pauseProducing()
    big = b'{"x":"%s"}' % (b"x" * 300_000)
    async with Pages(metrics=Metrics(Clients(hub))) as pages:
        found = {}
        for _ in range(60):
            server.log.emit([event("jobs", "status_changed", big)])
            found = values((await pages.get("/metrics"))[2])
            if found["towerbus_outbox_bytes",]:
                break
        assert found["towerbus_outbox_bytes",] >= 100_000
        assert found["towerbus_outbox_clients",] == 1
    client.transport.resumeProducing()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_those_who_ask_for_openmetrics_get_it():
    async with Pages(metrics=Metrics()) as pages:
        _, headers, body = await pages.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")


@pytest_twisted.ensureDeferred
async def test_two_in_one_process_do_not_share_anything():
    class One(Collector):
        def collect(self):
            return ()

    Metrics(One())
    Metrics(One())
