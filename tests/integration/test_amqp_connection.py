"""A connection to the broker: how it comes about, how its end is noticed, and that it leaves nothing behind."""

import datetime
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from pika import BasicProperties
from support.broker import Broker as Node
from support.certificates import Certificates
from support.intakes import channels, connections
from support.peers import peer
from support.proxy import Proxy
from support.tls_server import TlsServer
from support.wires import until
from twisted.internet import defer, reactor
from twisted.internet.defer import CancelledError
from twisted.internet.threads import deferToThread

from towerbus.amqp.connection import connect, tls_options
from towerbus.amqp.errors import ChannelClosed, trouble
from towerbus.amqp.url import parse
from towerbus.errors import ConfigError


@asynccontextmanager
async def connected(url, **given):
    connection = await connect(parse(url), "test", reactor, **given)
    try:
        yield connection
    finally:
        await connection.end()


async def failure(url, **given):
    """Why a connection does not come about, for a person."""
    with pytest.raises(Exception) as caught:
        await connect(parse(url), "test", reactor, **given)
    return trouble(caught.value, parse(url))


def at(url, port):
    """The same virtual host, by way of another port."""
    return f"amqp://tb:tb@127.0.0.1:{port}/{url.rpartition('/')[2]}"


# --- how it comes about


@pytest_twisted.ensureDeferred
async def test_it_has_a_name_knows_the_broker_and_ends(vhost, broker):
    async with connected(vhost) as connection:
        assert connection.server_properties["product"] == "RabbitMQ"
        assert len(connections(broker, vhost)) == 1
        assert connection.reason is None
        assert connection.transport.getTcpNoDelay()
    assert "200" in trouble(connection.reason, parse(vhost)).text
    await until(lambda: not connections(broker, vhost))


@pytest_twisted.ensureDeferred
async def test_a_peer_that_says_nothing_is_given_up():
    async with peer() as silent:
        found = await failure(f"amqp://127.0.0.1:{silent.port}", timeout=0.3)
        assert "no answer within 0.3 s" in found.text
        await until(lambda: not silent.connections)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_speaks_something_else_is_named():
    async with peer(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10) as other:
        found = await failure(f"amqp://127.0.0.1:{other.port}", timeout=5)
        assert found.refused
        assert "no AMQP" in found.text
        await until(lambda: not other.connections)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_hangs_up_is_named():
    async with peer() as other:
        failing = defer.Deferred.fromCoroutine(failure(f"amqp://127.0.0.1:{other.port}"))
        await until(lambda: other.received)
        for each in list(other.connections):
            each.transport.loseConnection()
        found = await failing
        assert "before a word of AMQP" in found.text
        assert not found.refused, "a broker that is about to stop does so too"


@pytest_twisted.ensureDeferred
async def test_refusals_say_what_to_mend(broker, vhost):
    assert "refused" in (await failure("amqp://127.0.0.1:9")).text
    found = await failure(vhost.replace("tb:tb@", "tb:secret@"))
    assert found.refused
    assert "password" in found.text
    assert "secret" not in found.text
    found = await failure(broker.url_of("nowhere"))
    assert found.refused
    assert "'nowhere'" in found.text


@pytest_twisted.ensureDeferred
async def test_a_channel_that_opens_after_its_opener_was_cancelled_is_closed(vhost, broker):
    async with connected(vhost) as connection:
        opening = connection.channel()
        opening.cancel()
        with pytest.raises(CancelledError):
            await opening
        await connection.channel()
        await until(lambda: channels(broker, vhost) == 1)
        assert connection.reason is None


@pytest_twisted.ensureDeferred
async def test_one_that_is_cancelled_leaves_nothing(vhost, broker):
    async with peer() as silent:
        connecting = defer.Deferred.fromCoroutine(connect(parse(f"amqp://127.0.0.1:{silent.port}"), "test", reactor))
        await until(lambda: silent.connections)
        connecting.cancel()
        with pytest.raises(CancelledError):
            await connecting
        await until(lambda: not silent.connections)


# --- how its end is noticed


@pytest_twisted.ensureDeferred
async def test_a_dead_peer_is_noticed_while_megabytes_are_unsent(vhost, broker):
    proxy = Proxy(reactor, broker.port)
    await proxy.start()
    connection = await connect(parse(at(vhost, proxy.port) + "?heartbeat=1"), "test", reactor)
    channel = await connection.channel()
    await channel.confirm()
    proxy.blackhole()
    confirmed = channel.publish("amq.fanout", "x", b"x" * 30_000_000, BasicProperties(), mandatory=False)
    reason = await connection.lost()
    assert "no heartbeat" in str(reason)
    with pytest.raises(ChannelClosed):
        await confirmed
    await proxy.heal()
    await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_a_frozen_broker_is_noticed_and_one_that_only_pauses_is_kept(own_broker):
    url = own_broker.vhost() + "?heartbeat=1"
    async with connected(url) as connection:
        own_broker.freeze()
        waited = defer.Deferred()
        reactor.callLater(1.2, waited.callback, None)
        await waited
        own_broker.thaw()
        await connection.channel()
        own_broker.freeze()
        reason = await connection.lost()
        assert "no heartbeat" in str(reason)
        own_broker.thaw()


@pytest_twisted.ensureDeferred
async def test_an_idle_connection_is_kept(vhost, broker):
    async with connected(vhost + "?heartbeat=1") as connection:
        checker = connection._impl._heartbeat_checker
        await until(lambda: checker._heartbeat_frames_sent > 7)
        assert connection.reason is None
        await connection.channel()


@pytest_twisted.ensureDeferred
async def test_the_brokers_own_words_are_kept(vhost, broker):
    connection = await connect(parse(vhost), "test", reactor)
    lost, broken = connection.lost(), []
    connection.on_broken = broken.append
    close = '[rabbit_networking:close_connection(Pid, <<"maintenance">>) || Pid <- rabbit_networking:connections()]'
    await deferToThread(broker.evaluate, close)
    reason = await lost
    assert (reason.reply_code, "maintenance" in reason.reply_text) == (320, True)
    assert broken == [reason]
    assert await connection.lost() is reason


@pytest_twisted.ensureDeferred
async def test_a_killed_broker_is_noticed_at_once(own_broker):
    connection = await connect(parse(own_broker.vhost()), "test", reactor)
    broken = []
    connection.on_broken = broken.append
    lost = connection.lost()
    await deferToThread(own_broker.kill)
    assert await lost
    assert len(broken) == 1


@pytest.mark.parametrize("vital", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_channel_that_the_broker_closes_is_told_where_it_is_vital(vhost, vital):
    async with connected(vhost) as connection:
        broken = []
        connection.on_broken = broken.append
        channel = await connection.channel(vital=vital)
        with pytest.raises(ChannelClosed) as caught:
            await channel.declare_queue("nowhere", passive=True)
        assert caught.value.code == 404
        opened = await connection.channel()
        assert [error.code for error in broken] == ([404] if vital else [])
        assert opened.error is None, "the connection goes on"


@pytest_twisted.ensureDeferred
async def test_an_alarm_is_told_and_its_end(own_broker):
    async with connected(own_broker.vhost()) as connection:
        told = []
        connection.on_blocked = lambda *given: told.append(given)
        channel = await connection.channel()
        await channel.confirm()
        await deferToThread(own_broker.set_alarm, "disk")
        channel.publish("amq.fanout", "x", b"x", BasicProperties(), mandatory=False)
        await until(lambda: connection.blocked)
        await deferToThread(own_broker.clear_alarm)
        await until(lambda: not connection.blocked)
    assert told == [(True, "low on disk"), (False, "")]


# --- how it is ended


@pytest_twisted.ensureDeferred
async def test_an_end_is_bounded_with_a_frozen_broker_and_with_unsent_bytes(own_broker):
    connection = await connect(parse(own_broker.vhost() + "?heartbeat=600"), "test", reactor)
    channel = await connection.channel()
    await channel.confirm()
    own_broker.freeze()
    publishing = channel.publish("amq.fanout", "x", b"x" * 30_000_000, BasicProperties(), mandatory=False)
    await connection.end()
    with pytest.raises(ChannelClosed):
        await publishing
    own_broker.thaw()


@pytest_twisted.ensureDeferred
async def test_an_end_of_a_blocked_connection_is_bounded(own_broker):
    connection = await connect(parse(own_broker.vhost()), "test", reactor)
    channel = await connection.channel()
    await channel.confirm()
    await deferToThread(own_broker.set_alarm, "memory")
    channel.publish("amq.fanout", "x", b"x", BasicProperties(), mandatory=False).addErrback(lambda _: None)
    await until(lambda: connection.blocked)
    await connection.end()
    assert connection.reason is not None


@pytest_twisted.ensureDeferred
async def test_an_end_may_be_asked_for_again_and_after_the_end(vhost):
    connection = await connect(parse(vhost), "test", reactor)
    broken = []
    connection.on_broken = broken.append
    first, second = connection.end(), connection.end()
    await first
    await second
    assert await connection.end() is connection.reason
    assert broken == [], "an end of ours is no breakage"
    with pytest.raises(ChannelClosed):
        await connection.channel()


@pytest_twisted.ensureDeferred
async def test_a_channel_that_was_asked_for_fails_with_the_connection(own_broker):
    connection = await connect(parse(own_broker.vhost()), "test", reactor)
    own_broker.freeze()
    opening = connection.channel()
    ending = connection.end()
    with pytest.raises(ChannelClosed):
        await opening
    await ending
    own_broker.thaw()


# --- TLS


@pytest.fixture(scope="module")
def mutual():
    """A node that wants a certificate of its clients."""
    with Node(tls="mutual") as node:
        yield node


def tls(node, vhost, **files):
    query = "&".join(f"{key}={value}" for key, value in files.items())
    return f"{node.url_of(vhost, tls=True)}?{query}"


@pytest_twisted.ensureDeferred
async def test_tls_with_a_good_certificate(vhost, broker):
    url = tls(broker, vhost, cacertfile=broker.certificates.authority)
    for host in ("127.0.0.1", "localhost"):
        async with connected(url.replace("127.0.0.1", host)) as connection:
            assert connection.transport.getTcpNoDelay()
            channel = await connection.channel()
            await channel.confirm()
            await channel.publish("amq.fanout", "x", b"x" * 3_000_000, BasicProperties(), mandatory=False)


@pytest_twisted.ensureDeferred
async def test_a_foreign_authority_is_not_trusted(vhost, broker, tmp_path):
    foreign = Certificates(tmp_path / "foreign")
    for files in ({"cacertfile": foreign.authority}, {}):
        found = await failure(tls(broker, vhost, **files))
        assert found.refused
        assert "certificate" in found.text


@pytest.mark.parametrize("wrong", ["host", "date"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_for_another_host_or_an_old_one_is_refused_before_anything_is_said(tmp_path, wrong):
    ours = Certificates(tmp_path / "ours")
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    if wrong == "host":
        files = ours.issue("elsewhere.example")
    else:
        files = ours.issue("127.0.0.1", not_before=past, not_after=past + datetime.timedelta(days=1))
    with TlsServer(*files) as server:
        found = await failure(f"amqps://u:secret@127.0.0.1:{server.port}/v?cacertfile={ours.authority}")
    assert found.refused
    assert "certificate" in found.text
    assert "secret" not in found.text
    assert server.spoken == b""


@pytest_twisted.ensureDeferred
async def test_a_peer_without_tls_is_named(vhost, broker):
    found = await failure(f"amqps://tb:tb@127.0.0.1:{broker.port}/x")
    assert "TLS" in found.text
    found = await failure(f"amqp://tb:tb@127.0.0.1:{broker.tls_port}/x", timeout=5)
    assert "is it TLS" in found.text


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_ours_is_shown_where_it_is_wanted(mutual, tmp_path):
    key, chain = mutual.certificates.issue("client@localhost")
    both = tmp_path / "both.pem"
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    trusted = tls(mutual, "tb", cacertfile=mutual.certificates.authority)
    for files in (f"certfile={chain}&keyfile={key}", f"certfile={both}"):
        async with connected(f"{trusted}&{files}"):
            pass
    stranger_key, stranger = Certificates(tmp_path / "foreign").issue("client@localhost")
    for files in ("", f"&certfile={stranger}&keyfile={stranger_key}"):
        found = await failure(f"{trusted}{files}")
        assert found.refused
        assert "certfile" in found.text


def test_files_that_can_not_be_used_are_named(tmp_path, broker):
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    key, chain = broker.certificates.issue("one@localhost")
    other, _ = broker.certificates.issue("other@localhost")
    for query in (
        f"cacertfile={nonsense}",
        f"certfile={nonsense}",
        f"certfile={chain}",
        f"certfile={chain}&keyfile={nonsense}",
    ):
        with pytest.raises(ConfigError, match="PEM"):
            tls_options(parse(f"amqps://h?{query}"))
    assert key != other
