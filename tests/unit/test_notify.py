"""What a service manager hears, on a real socket, turn by turn."""

import os
import socket

import pytest
from twisted.internet import task

from towerbus.ops.notify import OUTAGE, Condition, Notify, Supervised


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address, **more):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": address, **more}

    def heard(self):
        """What was said since the last call, each message as a dictionary."""
        found = []
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                return found
            found.append(dict(line.split("=", 1) for line in text.split("\n")))


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@towerbus-test-{os.getpid()}"
    made = Manager(address, WATCHDOG_USEC="8000000", WATCHDOG_PID=str(os.getpid()))
    yield made
    made.socket.close()


class Process:
    """A supervised process whose condition is as it is set."""

    def __init__(self, environment, **more):
        self.clock, self.broken, self.doing = task.Clock(), "", "serving"
        self.service = Supervised(self.clock, Notify(environment), self.condition, **more)

    def condition(self):
        if isinstance(self.broken, Exception):
            raise self.broken
        return Condition(self.broken, self.doing)


def test_a_reason_of_several_lines_is_one_line_and_no_field_of_its_own(manager):
    process = Process(manager.environment)
    process.broken = "two mistakes:\n  READY=1\n  the other"
    process.service.startService()
    assert manager.heard() == [{"STATUS": "not ready: two mistakes: READY=1 the other"}]


def test_ready_comes_when_it_does_its_work_and_the_watchdog_is_fed_then(manager):
    process = Process(manager.environment)
    process.broken = "listen: the log's end is not known yet"
    process.service.startService()
    assert manager.heard() == [{"STATUS": "not ready: listen: the log's end is not known yet"}]
    process.clock.advance(1)
    assert manager.heard() == []
    process.broken = ""
    process.clock.advance(1)
    assert manager.heard() == [{"STATUS": "serving", "READY": "1", "WATCHDOG_USEC": "8000000", "WATCHDOG": "1"}]
    process.clock.advance(1)
    assert manager.heard() == [{"WATCHDOG": "1"}]
    process.service.stopService()


def test_what_is_broken_gets_no_food_but_more_time(manager):
    process = Process(manager.environment)
    process.service.startService()
    manager.heard()
    process.broken = "broker: it has not answered for 4 s"
    process.clock.advance(1)
    assert manager.heard() == [
        {"STATUS": "not ready: broker: it has not answered for 4 s", "WATCHDOG_USEC": str(int(OUTAGE * 1e6))}
    ]
    process.clock.pump([1] * 30)
    assert manager.heard() == []
    process.broken = ""
    process.clock.advance(1)
    assert manager.heard() == [{"STATUS": "serving", "WATCHDOG_USEC": "8000000", "WATCHDOG": "1"}]
    process.service.stopService()


def test_a_condition_that_can_not_be_told_is_no_health(manager, logged_failures):
    process = Process(manager.environment)
    process.service.startService()
    manager.heard()
    process.broken = RuntimeError("why")
    process.clock.advance(1)
    (said,) = manager.heard()
    assert "WATCHDOG" not in said
    assert "see its log" in said["STATUS"]
    process.broken = ""
    process.clock.advance(1)
    assert manager.heard()[0]["WATCHDOG"] == "1"
    process.service.stopService()
    logged_failures.clear()


def test_a_stop_is_told_with_the_time_that_it_may_take(manager):
    process = Process(manager.environment, stops_within=60.0)
    process.service.startService()
    manager.heard()
    process.service.stopService()
    (said,) = manager.heard()
    assert said["STOPPING"] == "1"
    assert int(said["EXTEND_TIMEOUT_USEC"]) >= 60_000_000


def test_a_reload_is_told(manager):
    notify = Notify(manager.environment)
    notify.reloading()
    notify.reloaded()
    assert manager.heard() == [], "it is not ready yet, and not by this"
    notify.tell(READY=1)
    manager.heard()
    notify.reloading()
    notify.reloaded()
    begun, ended = manager.heard()
    assert begun["RELOADING"] == "1"
    assert int(begun["MONOTONIC_USEC"]) > 0
    assert ended == {"READY": "1"}


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_this_processs_or_none(more, seconds):
    assert Notify({"NOTIFY_SOCKET": "/nowhere", **more}).watchdog == seconds
    assert Notify(more).watchdog is None


def test_without_a_service_manager_nothing_is_done():
    process = Process({})
    process.service.startService()
    assert process.clock.getDelayedCalls() == []
    process.service.stopService()


def test_one_that_does_not_listen_is_no_trouble():
    Notify({"NOTIFY_SOCKET": "/nowhere/at/all"}).tell(READY=1)
