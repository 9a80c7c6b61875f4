"""What each load asks of whom."""

import json
from collections import Counter

import pytest

from towerbus.bench.content import Content, difference
from towerbus.bench.latencies import Latencies, bucket, upper
from towerbus.bench.loads import Name, Role, Shape
from towerbus.bench.schedule import NEVER


def test_one_topic_for_all():
    shape = Shape(name=Name.TOPIC, clients=3, mark="m.")
    assert [each.name for each in shape.names()] == ["jobs-m.status_changed"]
    assert [tuple(shape.wants(client)) for client in range(3)] == [(0,)] * 3


def test_topics_in_turn():
    shape = Shape(name=Name.TOPIC, clients=4, topics=4, each=2)
    assert list(shape.schedule(6).plan) == [0, 1, 2, 3, 0, 1]
    assert [tuple(shape.wants(client)) for client in range(4)] == [(0, 1), (1, 2), (2, 3), (3, 0)]


def test_a_day_at_the_tower():
    shape = Shape(name=Name.TOWER_DAY, clients=20, jobs=5, status_share=50 / 2050)
    counts = Counter(shape.schedule(4100).plan)
    assert counts[0] == 100
    assert set(counts.values()) == {100, 800}
    assert shape.wants(7) == (0, 3)
    assert shape.names()[3].name == "job_events-3"


def test_who_walks_keeps_some_and_the_last_event_is_for_all():
    shape = Shape(name=Name.NAVIGATION, clients=9, topics=6)
    now, then = set(shape.wants(4, 0)), set(shape.wants(4, 1))
    assert len(now & then) == 3
    assert len(then - now) == 1
    assert shape.schedule(7).plan[-1] == 0


@pytest.mark.parametrize(("clients", "few"), [(10, 1), (100, 3), (1000, 20), (7, 7)])
def test_the_few_are_spread_evenly(clients, few):
    slow = Shape(name=Name.SLOW, clients=clients, few=few)
    idle = Shape(name=Name.IDLE, clients=clients, few=few)
    assert Counter(map(slow.role, range(clients)))[Role.SLOW] == few
    assert Counter(map(idle.role, range(clients)))[Role.BUSY] == few
    silent = next((client for client in range(clients) if idle.role(client) is Role.IDLE), None)
    if silent is not None:
        assert idle.schedule(5).feed(idle.wants(silent)).following(0) == NEVER


def test_every_byte_follows_from_the_number():
    one, same, other = Content("abc1", 300), Content("abc1", 300), Content("abc2", 300)
    for number in (0, 1, 123_456):
        payload = one.payload(number)
        assert len(payload) == 300
        assert payload == same.payload(number) != other.payload(number)
        assert json.loads(payload)["number"] == number
        assert one.number(payload) == number
        assert other.number(payload) is None
    assert len(Content("abc1", 64).payload(10**9)) == 64


def test_a_difference_is_told_by_its_place():
    assert difference(b"abcd", b"abxd") == "4 bytes for 4, from byte 2 on b'cd' for b'xd'"
    assert "2 bytes for 3" in difference(b"ab", b"abc")


def test_times_are_counted_to_a_sixty_fourth():
    for micros in (0, 1, 127, 128, 999, 5_000, 123_456, 10_000_000):
        bound = upper(bucket(micros / 1e6 + 1e-9))
        assert micros <= bound <= micros * (1 + 1 / 64) + 1
    times = Latencies()
    assert times.summary() == {}
    for millis in range(1, 101):
        times.note(millis / 1000)
    found = times.summary()
    assert found["p50"] == pytest.approx(50, rel=0.02)
    assert found["p99"] == pytest.approx(99, rel=0.02)
    assert found["max"] == pytest.approx(100, rel=0.02)
