"""The source `http`: posts are answered when they are on the disk, and come through whatever happens meanwhile."""

import json
import signal
import stat
from contextlib import contextmanager

import pytest
from support.bridge import ask, await_log, running_bridge
from support.intakes import declare_now
from support.running import wait_for
from support.worker import LogText, running_worker

pytestmark = pytest.mark.long

SOURCE = """
[[bridge]]
name = "emit"
[bridge.source]
kind = "http"
listen = "unix:{socket}:mode=660"
"""


def events(begin, count, **more):
    return [
        {"group": "jobs", "type": "x", "id": f"n{n}", "payload": {"n": n, **more}} for n in range(begin, begin + count)
    ]


def post(where, items, **headers):
    return ask(where, "POST", "/emit", json.dumps(items), headers)


@contextmanager
def ordered(directory, url):
    """A worker, and the log that it writes."""
    with running_worker(directory, url) as worker:
        worker.await_log("fence_written")
        with LogText(url) as log:
            yield log


def spooled(bridge):
    return bridge.metric("towerbus_bridge_spool_events", bridge="emit")


@pytest.fixture
def socket(tmp_path):
    # A Unix socket's path may have about 100 characters.
    return tmp_path / "emit.sock"


def test_what_was_acknowledged_while_the_bus_was_away_comes_once_and_in_order(own_broker, tmp_path, socket):
    """50,000 events; the bridge is killed in the middle, and again when it forwards."""
    url = own_broker.vhost()
    declare_now(url)
    own_broker.settle()
    own_broker.kill()
    tables, total, batch = SOURCE.format(socket=socket), 50_000, 500
    acknowledged = 0

    def post_until(end):
        nonlocal acknowledged
        while acknowledged < end:
            status, said = post(socket, events(acknowledged, batch))
            assert (status, said) == (202, {"accepted": batch})
            acknowledged += batch

    with running_bridge(tmp_path, url, tables) as bridge:
        wait_for(socket.exists, 30, "the socket")
        assert stat.S_IMODE(socket.stat().st_mode) == 0o660
        post_until(total // 2)
        # Taken, and perhaps not answered: a producer posts it again, with the same ids.
        post(socket, events(acknowledged, batch))
        bridge.kill()
    with running_bridge(tmp_path, url, tables) as bridge:
        await_log(bridge, "bridge_established: emit")
        post_until(total)
        assert spooled(bridge) == total
        assert "bus" in bridge.get("/readyz")[1]["broken"]
        # It forwards as soon as it can: held until the broker is whole, so that it is seen while it does.
        bridge.process.send_signal(signal.SIGSTOP)
        own_broker.recover()
        own_broker.await_queues(url)
        bridge.process.send_signal(signal.SIGCONT)
        wait_for(lambda: spooled(bridge) < total, 60, "events on their way")
        assert spooled(bridge) > 0, "it was killed too late"
        bridge.kill()
    with ordered(tmp_path, url) as log, running_bridge(tmp_path, url, tables) as third:
        third.await_ready()
        log.await_events(total, seconds=60)
        wait_for(lambda: spooled(third) == 0, 30, "an empty spool")
        found = log.await_events(total)
    assert len(found) == total
    assert found == [f"n{n}" for n in range(total)]


def test_a_full_spool_refuses_clearly_and_takes_again_when_there_is_room(own_broker, tmp_path, socket):
    url = own_broker.vhost()
    declare_now(url)
    own_broker.settle()
    own_broker.kill()
    tables = SOURCE.format(socket=socket) + "spool_bytes = 1048576\n"
    with running_bridge(tmp_path, url, tables) as bridge:
        wait_for(socket.exists, 30, "the socket")
        taken, status = 0, 202
        while status == 202:
            status, said = post(socket, events(taken, 10, text="x" * 10_000))
            taken += 10 * (status == 202)
        assert status == 503
        assert "the spool is full" in said["error"]
        assert said["taken"] is False
        bridge.await_broken("bridge emit", "the spool is full")
        assert bridge.metric("towerbus_bridge_spool_refused_events", bridge="emit") == 10
        own_broker.recover()
        own_broker.await_queues(url)
        with ordered(tmp_path, url) as log:
            assert log.await_events(taken) == [f"n{n}" for n in range(taken)]
            bridge.await_ready()
            assert post(socket, events(taken, 1))[0] == 202
            assert log.await_events(taken + 1)[-1] == f"n{taken}"


def test_tcp_asks_for_tokens_and_a_mapping_changes_what_was_posted(vhost, tmp_path):
    from support.server import token

    key, good = token(tmp_path)
    tables = f"""
[[bridge]]
name = "emit"
[bridge.source]
kind = "http"
listen = "tcp:0:interface=127.0.0.1"
auth = ["jwt:{key}"]
[bridge.mapping]
group = "tenant_a_{{group}}"
select = ["n", "host"]
rename = {{ host = "node" }}
[[bridge.mapping.filter]]
value = "{{payload.n}}"
not_in = ["2"]
"""
    with running_worker(tmp_path, vhost), running_bridge(tmp_path, vhost, tables) as bridge:
        bridge.await_ready()
        port = bridge.listening("emit")
        assert post(port, events(0, 1))[0] == 401
        assert post(port, events(0, 1), Authorization="Bearer wrong")[0] == 401
        assert post(port, [{"group": "jobs"}], Authorization=f"Bearer {good}")[0] == 400
        status, _ = post(port, events(0, 4, host="web-1", secret="x"), Authorization=f"Bearer {good}")
        assert status == 202
        with LogText(vhost) as log:
            assert log.await_events(3) == ["n0", "n1", "n3"]
            assert log.events[0].topic == ("tenant_a_jobs", "x")
            assert json.loads(log.events[0].payload) == {"n": 0, "node": "web-1"}
        assert bridge.metric("towerbus_bridge_filtered_total", bridge="emit") == 1


def test_a_port_that_is_taken_is_told_and_waited_for(vhost, tmp_path, socket):
    with running_worker(tmp_path, vhost):
        (tmp_path / "bridge-state" / "old").mkdir(parents=True)
        (tmp_path / "bridge-state" / "old" / "spool.db").touch()
        socket = tmp_path / "later" / "emit.sock"
        with running_bridge(tmp_path, vhost, SOURCE.format(socket=socket)) as bridge:
            bridge.await_broken("bridge emit", "later")
            assert "spool_orphaned" in bridge.log
            socket.parent.mkdir()
            bridge.await_ready()
            assert post(socket, events(0, 1))[0] == 202


def test_a_second_bridge_on_the_same_state_is_refused(vhost, tmp_path, socket):
    with running_bridge(tmp_path, vhost, SOURCE.format(socket=socket)) as bridge:
        wait_for(socket.exists, 30, "the socket")
        with running_bridge(tmp_path, vhost, SOURCE.format(socket=socket)) as second:
            assert second.process.wait(30) == 1
            assert "--bridge-state" in second.log
            assert "in use by process" in second.log
        assert bridge.process.poll() is None


def test_a_socket_on_which_another_bridge_listens_is_left_to_it(vhost, tmp_path, socket):
    with running_bridge(tmp_path, vhost, SOURCE.format(socket=socket)) as bridge:
        wait_for(socket.exists, 30, "the socket")
        with running_bridge(tmp_path, vhost, SOURCE.format(socket=socket), name="second") as second:
            second.await_broken("bridge emit", "another process listens there")
        assert post(socket, events(0, 1))[0] == 202
        assert bridge.metric("towerbus_bridge_up", bridge="emit") == 1
