"""How the doctor judges what it sees."""

import pytest

from towerbus.doctor import findings
from towerbus.doctor.findings import Level


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("3.10.8", Level.OK),
        ("4.1.0", Level.OK),
        ("3.9.29", Level.ERROR),
        ("3.8.2", Level.ERROR),
        ("?", Level.NOTE),
        ("", Level.NOTE),
    ],
)
def test_versions(version, level):
    assert findings.version("RabbitMQ", version).level is level


@pytest.mark.parametrize(
    ("messages", "workers", "level"),
    [(0, 1, Level.OK), (0, 0, Level.ERROR), (findings.WAITING + 1, 1, Level.WARNING), (findings.WAITING, 2, Level.OK)],
)
def test_the_intake(messages, workers, level):
    assert findings.intake(messages, workers).level is level


def test_the_intake_has_one_active_reader_however_many_stand_by():
    assert "a worker is active" in findings.intake(0, 1).text
    assert "no worker is active" in findings.intake(0, 0).text


@pytest.mark.parametrize(
    ("told", "levels"),
    [
        ({}, []),
        ({"consumer_details": []}, []),
        ({"consumer_details": [{"active": True}]}, [Level.WARNING]),
        ({"consumer_details": [{"active": True}, {"active": False}]}, [Level.OK]),
    ],
)
def test_workers(told, levels):
    assert [finding.level for finding in findings.workers(told)] == levels


def retention(**given):
    told = {"window": 3600, "max_age": 86400.0, "span": 50.0, "cut": False, "segment_bytes": 1, "max_bytes": 100}
    return findings.retention(**(told | given))


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ({}, [Level.OK]),
        ({"span": None}, [Level.OK]),
        ({"max_age": 3599.0}, [Level.ERROR]),
        ({"cut": True}, [Level.ERROR]),
        ({"cut": True, "span": 3601.0}, [Level.OK]),
        ({"segment_bytes": 26}, [Level.WARNING]),
        ({"segment_bytes": 26, "max_age": 1.0, "cut": True}, [Level.ERROR, Level.ERROR, Level.WARNING]),
    ],
)
def test_retention(given, levels):
    found = retention(**given)
    assert [finding.level for finding in found] == levels
    assert all(finding.mend for finding in found if finding.level is not Level.OK)


@pytest.mark.parametrize(
    ("apart", "level"), [(0, Level.OK), (-1.9, Level.OK), (2.1, Level.WARNING), (-3600, Level.WARNING)]
)
def test_clocks(apart, level):
    assert findings.clock(1000.0 + apart, 1000.0, "the broker's").level is level


@pytest.mark.parametrize(("soft", "hard", "level"), [(1024, 20000, Level.OK), (1024, 1024, Level.WARNING)])
def test_open_files(soft, hard, level):
    assert findings.open_files(soft, hard).level is level


HEALTHY = {
    "name": "a",
    "running": True,
    "mem_alarm": False,
    "disk_free_alarm": False,
    "fd_used": 1,
    "fd_total": 100,
    "partitions": [],
}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, []),
        ({"running": False}, ["a is down"]),
        ({"mem_alarm": True, "disk_free_alarm": True}, ["out of memory", "low on disk"]),
        ({"fd_used": 81}, ["81 of 100"]),
        ({"partitions": ["b"]}, ["cut off from"]),
    ],
)
def test_nodes(told, words):
    found = list(findings.node(HEALTHY | told))
    assert len(found) == len(words)
    for finding, word in zip(found, words, strict=True):
        assert word in finding.text
        assert finding.mend


WHOLE = {"name": "q", "type": "quorum", "state": "running", "members": ["a", "b", "c"], "online": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("told", "levels"),
    [
        ({}, []),
        ({"state": "down"}, [Level.ERROR]),
        ({"online": ["a"]}, [Level.ERROR]),
        ({"online": ["a", "b"]}, [Level.WARNING]),
        ({"members": ["a"], "online": ["a"]}, [Level.WARNING]),
        ({"policy": "p"}, [Level.NOTE]),
    ],
)
def test_copies_of_a_queue(told, levels):
    assert [finding.level for finding in findings.queue(WHOLE | told, 3)] == levels


def test_a_queue_that_was_just_declared_is_not_called_down():
    assert list(findings.queue({"name": "q"}, 1)) == []
