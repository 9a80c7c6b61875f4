"""The room where clients catch up: exactly what was missed, in order, without a seam, whatever happens meanwhile."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deep_log import DeepLog
from zope.interface.verify import verifyObject

from towerbus.catchup import rest, shared
from towerbus.catchup import room as room_module
from towerbus.catchup.encodings import Encodings
from towerbus.catchup.limits import Limits
from towerbus.catchup.room import CatchUp
from towerbus.dispatcher import Lane
from towerbus.event import event
from towerbus.intake.interface import IIntake
from towerbus.interest import NOTHING, Interest, Sight
from towerbus.log.interface import ILog
from towerbus.session_wire import Past
from towerbus.topics import Topic
from towerbus.wire.fanout import FanOut

A, B, C = Topic("g", "a"), Topic("g", "b"), Topic("h", "a")
WHOLE = Sight("g", frozenset({""}))


def opens(topic):
    return frozenset() if topic.type == "secret" else frozenset({""})


def only(*topics):
    return Interest(frozenset(topics))


class Turns:
    """A clock and a reactor, each of whose turns calls what was due when it began.

    Attributes:
        step: Seconds that go by with each look at the clock.
    """

    def __init__(self):
        self.now, self.step, self.calls = 0.0, 0.0, []

    def seconds(self):
        self.now += self.step
        return self.now

    def call_later(self, delay, function, *given):
        call = Call(self, self.now + delay, function, given)
        self.calls.append(call)
        return call

    def turn(self, seconds):
        self.now += seconds
        due = [call for call in self.calls if call.at <= self.now]
        for call in due:
            if call in self.calls:
                self.calls.remove(call)
                call.function(*call.given)


class Call:
    def __init__(self, turns, at, function, given):
        self.turns, self.at, self.function, self.given = turns, at, function, given

    def cancel(self):
        self.turns.calls.remove(self)


class Client:
    """Does for the room what a session and its wire do."""

    def __init__(self, bus, slow=False):
        self.bus, self.slow, self.waiting, self.most = bus, slow, 0, 0
        self.got, self.recoveries, self.gaps, self.ends = [], [], [], []
        self.live_from = None
        self.keep, self.kept_from = NOTHING, 0

    def begin(self, interest, since=None, last=None, keep=NOTHING):
        self.interest, self.keep, self.kept_from = interest, keep, self.bus.number
        if keep:
            self.bus.fanout.subscribe(self.bus.lane, self, keep, NOTHING)
        joined = interest.without(keep)
        past = Past(joined, joined.seen(keep.topics, opens), since, last)
        self.bus.room.begin(self, self.bus.lane, past)
        return self

    def write(self, data):
        assert not self.ends
        self.got += [int(number) for number in data.split(b";")[:-1]]
        self.check_kept()
        if self.slow:
            self.waiting += len(data)
            self.most = max(self.most, self.waiting)

    def check_kept(self):
        """What it hears all along is never behind what it catches up with: one position is for both."""
        if self.keep and self.live_from is None:
            topics = [topic for _, topic, _ in self.bus.all]
            kept = [number for number in self.got if self.keeps(topics[number])]
            caught = [number for number in self.got if not self.keeps(topics[number])]
            if caught:
                due = [n for n in range(self.kept_from, max(caught)) if self.keeps(topics[n])]
                assert kept[: len(due)] == due

    def drain(self, amount=10**9):
        self.waiting = max(0, self.waiting - amount)

    def recovered(self, position, lost=None):
        assert not self.recoveries, "told twice"
        assert not self.got or self.keep
        self.recoveries.append((position, lost))

    def missed(self, lost):
        assert self.recoveries
        self.gaps.append((len(self.got), lost))

    def caught_up(self):
        assert self.recoveries
        assert self.live_from is None
        self.live_from = len(self.got)
        self.bus.fanout.subscribe(
            self.bus.lane, self, self.interest.without(self.keep), self.keep.without(self.interest)
        )

    def unavailable(self, reason):
        self.ends.append(reason)

    def keeps(self, topic):
        return topic in self.keep.topics or any(sight.sees(topic, opens) for sight in self.keep.sights)

    def wants(self, topic):
        return topic in self.interest.topics or any(sight.sees(topic, opens) for sight in self.interest.sights)


class Bus:
    """A deep log, a fan-out and the room, whose turns are turned by hand."""

    def __init__(self, tail_bytes=2000, piece=10, room=10**6, send=10**5):
        self.clock = Turns()
        self.log = DeepLog(tail_bytes, piece)
        self.encoded = Counter()
        self.lane = Lane(self.encode, opens)
        self.fanout = FanOut([self.lane], self.clock.call_later, self.broadcast, lambda: self.log.tail.end)
        self.room = CatchUp(
            self.log, self.fanout.flush, opens, self.clock.call_later, self.clock.seconds, Limits(room=room, piece=send)
        )
        self.fanout.on_lost = lambda lost: self.room.look_again()
        self.log.follow(self.fanout)
        self.number, self.all = 0, []

    def encode(self, record, number):
        self.encoded[record.offset, number] += 1
        return record.events[number].payload[5:-1] + b";"

    @staticmethod
    def broadcast(members, data):
        for member in tuple(members):
            member.write(data)

    def emit(self, *topics):
        """One record with an event for each topic; their positions."""
        events = []
        for topic in topics:
            events.append(event(*topic, b'{"n":%d}' % self.number))
            self.number += 1
        self.log.append(events)
        record = self.log.records[-1]
        places = [record.position(number) for number in range(len(events))]
        self.all += [
            (place, topic, int(made.payload[5:-1])) for place, topic, made in zip(places, topics, events, strict=True)
        ]
        return places

    def fill(self, count, *topics):
        for _ in range(count):
            self.emit(*(topics or (A,)))

    def turn(self, seconds=0.0):
        self.clock.turn(seconds)

    def settle(self, turns=500):
        """Turn until nobody catches up."""
        for _ in range(turns):
            if not len(self.room):
                break
            self.turn(0.02)
        assert not len(self.room)

    def expected(self, client, since):
        return [
            number
            for place, topic, number in self.all
            if (number >= client.kept_from if client.keeps(topic) else place > since) and client.wants(topic)
        ]

    def end(self):
        self.room.close()
        self.turn(0.1)
        assert not self.clock.calls


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(shared, "EVENTS", 10)
    monkeypatch.setattr(rest, "CHUNK", 7)


@pytest.fixture
def bus():
    made = Bus()
    yield made
    made.end()


def test_the_deep_log_provides_the_seams(bus):
    assert verifyObject(ILog, bus.log)
    assert verifyObject(IIntake, bus.log)


def test_what_the_tail_has_comes_in_one_turn_and_the_next_event_follows(bus):
    bus.log.tail._max_bytes = 10**6
    bus.fill(5, A, B, C)
    since = bus.all[6][0]
    client = Client(bus).begin(only(A, C), since)
    bus.emit(A, B)
    bus.turn()
    bus.emit(A)
    bus.emit(B, C)
    bus.turn()
    assert client.recoveries == [(since, None)]
    assert client.got == bus.expected(client, since)
    assert client.live_from is not None
    assert bus.log.replays == 0
    assert not len(bus.room)


def test_what_is_emitted_in_the_same_turn_comes_once(bus):
    """Gathered by the fan-out, and in the tail already."""
    bus.fill(3)
    since = bus.all[0][0]
    client = Client(bus).begin(only(A), since)
    other = Client(bus)
    bus.fanout.subscribe(bus.lane, other, only(A), NOTHING)
    bus.emit(A)
    assert not other.got, "gathered, and not sent yet"
    bus.turn()
    assert client.got == [1, 2, 3]
    assert other.got == [3]
    bus.emit(A)
    bus.turn()
    assert client.got == [1, 2, 3, 4]


def test_what_the_tail_has_and_the_fan_out_not_yet_comes_once(bus):
    """The log hands a record to its followers one after the other, and one of them turns the room."""
    bus.fill(3)

    class First:
        def received(self, record):
            bus.turn()

        def lost(self, lost):
            """Nothing is."""

    bus.log.followers._followers.insert(0, First())
    since = bus.all[0][0]
    client = Client(bus).begin(only(A), since)
    bus.emit(A)
    assert client.live_from == 2
    bus.turn()
    assert client.got == [1, 2, 3]


def test_older_places_are_read_from_the_log_by_one_reading_for_all(bus):
    bus.fill(100, A, B)
    places = [bus.all[number][0] for number in (3, 0, 40, 41, 120, 121, 122, 7)]
    clients = [Client(bus).begin(only(A), since) for since in places]
    clients += [Client(bus).begin(Interest(sights=frozenset({WHOLE})), since) for since in places]
    bus.settle()
    bus.emit(A, B)
    bus.turn()
    for client, since in zip(clients, places * 2, strict=True):
        assert client.recoveries == [(since, None)]
        assert client.got == bus.expected(client, since)
    assert bus.log.replays == bus.room.counts.readings == 1
    assert bus.log.open == []
    assert set(bus.encoded.values()) == {1}, "once for all"
    assert bus.room.counts.recovered == 16


def test_one_that_comes_while_a_reading_has_not_passed_its_place_joins_it(bus):
    bus.fill(200)
    bus.log.held = []
    first = Client(bus).begin(only(A), bus.all[0][0])
    for _ in range(8):
        bus.turn(0.02)
        bus.log.release()
    assert first.got, "under way"
    ahead = Client(bus).begin(only(A), bus.all[150][0])
    for _ in range(200):
        bus.turn(0.02)
        bus.log.release()
    assert ahead.got == bus.expected(ahead, bus.all[150][0])
    assert first.got == bus.expected(first, bus.all[0][0])
    assert bus.log.replays == 1


def test_one_that_a_reading_has_passed_gets_another_and_no_more_than_a_few_are_open(bus):
    bus.fill(300)
    bus.log.held, most = [], 0
    clients = []
    for number in range(60):
        since = bus.all[200 - number * 3][0]
        clients.append((Client(bus).begin(only(A), since), since))
        bus.turn(0.02)
        most = max(most, len(bus.log.open))
        bus.log.release()
    for _ in range(400):
        bus.turn(0.02)
        most = max(most, len(bus.log.open))
        bus.log.release()
    assert 1 < most <= 4
    for client, since in clients:
        assert client.got == bus.expected(client, since)
    bus.log.answer_at_once()


def test_who_waits_long_gets_a_reading_of_its_own(bus):
    bus.fill(900)
    bus.log.held = []
    Client(bus).begin(only(A), bus.all[0][0])
    for _ in range(4):
        bus.turn(0.02)
        bus.log.release()
    Client(bus).begin(only(A), bus.all[800][0])
    for _ in range(30):
        bus.turn(0.02)
    assert bus.log.replays == 2
    bus.log.answer_at_once()


def test_kept_topics_go_on_meanwhile_and_are_not_repeated(bus):
    bus.fill(100, A, B)
    since = bus.all[10][0]
    client = Client(bus).begin(only(A, B), since, keep=only(B))
    for _ in range(5):
        bus.emit(A, B)
        bus.turn(0.02)
    bus.settle()
    bus.emit(A, B)
    bus.turn()
    numbers = {topic: [n for _, t, n in bus.all if t == topic] for topic in (A, B)}
    assert [n for n in client.got if n in numbers[A]] == [n for p, t, n in bus.all if t == A and p > since]
    assert [n for n in client.got if n in numbers[B]] == numbers[B][100:]


def test_a_group_comes_without_the_topics_that_were_heard_all_along(bus):
    for back in (3, 150):
        bus.fill(100, A, B)
        since = bus.all[-back][0]
        client = Client(bus).begin(Interest(sights=frozenset({WHOLE})), since, keep=only(B))
        live = len([1 for _, topic, _ in bus.all if topic == B])
        bus.settle()
        bus.emit(A, B)
        bus.turn()
        numbers = [n for _, t, n in bus.all if t == B]
        assert [n for n in client.got if n in numbers] == numbers[live:]
        assert [n for n in client.got if n not in numbers] == [n for p, t, n in bus.all if t == A and p > since]


def test_secret_topics_are_not_part_of_a_group(bus):
    secret = Topic("g", "secret")
    bus.fill(100, A, secret)
    for since in (bus.all[0][0], bus.all[-3][0]):
        client = Client(bus).begin(Interest(sights=frozenset({WHOLE})), since)
        bus.settle()
        assert client.got == bus.expected(client, since)


# Positions that are not there


def anew(position):
    return position._replace(epoch="ffff")


def test_a_position_of_another_log_is_lost_and_the_rest_follows(bus):
    bus.fill(3)
    client = Client(bus).begin(only(A), anew(bus.all[1][0]))
    bus.settle()
    ((position, lost),) = client.recoveries
    assert lost.after == anew(bus.all[1][0])
    assert lost.until == position == bus.log.tail.begin
    assert "another" in lost.reason
    assert client.got == bus.expected(client, position)


def test_a_position_of_the_future_is_waited_for_and_then_lost(bus):
    bus.fill(3)
    future = bus.all[-1][0]._replace(offset=4)
    came, never = Client(bus).begin(only(A), future), Client(bus).begin(only(A), future._replace(offset=400))
    bus.turn(1)
    assert not came.recoveries
    bus.fill(2)
    bus.turn(0.02)
    assert came.recoveries == [(future, None)]
    assert came.got == [4]
    assert not never.recoveries
    bus.turn(2)
    bus.settle()
    ((position, lost),) = never.recoveries
    assert (lost.until, "past the end" in lost.reason) == (position, True)
    assert position == bus.log.tail.end


def test_a_position_that_never_was_is_lost_wherever_it_stands(bus):
    bus.log.gap = 3
    bus.fill(100, A, A)
    for number in (197, 60, 3):
        there = bus.all[number][0]
        for wrong in (there._replace(offset=there.offset - 1), there._replace(place=9)):
            good = Client(bus).begin(only(A), bus.all[30][0])
            client = Client(bus).begin(only(A), wrong)
            bus.settle()
            ((position, lost),) = client.recoveries
            assert lost.after == wrong
            assert "not in the log" in lost.reason
            assert position == lost.until == bus.log.tail.end
            assert good.recoveries == [(bus.all[30][0], None)]
            assert good.got == bus.expected(good, bus.all[30][0])


def test_what_retention_has_taken_is_lost_and_the_rest_follows(bus):
    bus.fill(100)
    bus.log.let_go(30)
    places = [bus.all[number][0] for number in range(28)]
    clients = [Client(bus).begin(only(A), since) for since in places]
    kept = Client(bus).begin(only(A), bus.all[40][0])
    bus.settle()
    for client, since in zip(clients, places, strict=True):
        ((position, lost),) = client.recoveries
        assert position == lost.until == bus.all[29][0]
        assert lost.after == since
        assert client.got == bus.expected(client, position)
    assert kept.recoveries == [(bus.all[40][0], None)]
    assert kept.got == bus.expected(kept, bus.all[40][0])
    assert bus.log.replays <= 3, "all that are lost by the same are told by the same"


def test_what_retention_takes_on_the_way_is_a_gap(bus):
    bus.fill(100)
    bus.log.held = []
    since = bus.all[0][0]
    client = Client(bus).begin(only(A), since)
    while len(client.got) < 10:
        bus.turn(0.02)
        bus.log.release()
    bus.log.let_go(60)
    bus.log.answer_at_once()
    bus.settle()
    ((got, lost),) = client.gaps
    assert client.recoveries == [(since, None)]
    assert lost.after == bus.all[got][0]
    assert lost.until == bus.all[59][0]
    assert client.got == [n for _, _, n in bus.all[1 : got + 1]] + [n for _, _, n in bus.all[60:]]


@pytest.mark.parametrize("before", [3, 13, 40])
def test_what_can_not_be_read_hides_nothing_that_stands_before_it(bus, before):
    bus.fill(before)
    bus.log.junk()
    bus.fill(5)
    places = [bus.all[0][0], bus.all[1][0], bus.all[before // 2][0]]
    places.append(bus.all[before - 1][0])
    clients = [Client(bus).begin(only(A), since) for since in places]
    bus.settle()
    junk = next(iter(bus.log.unreadable))
    for client, since in zip(clients, places, strict=True):
        assert client.recoveries == [(since, None)]
        assert client.got == bus.expected(client, since)
        ((_, lost),) = client.gaps
        assert (lost.after, lost.until) == (bus.all[before - 1][0], junk.end)


def test_a_log_that_is_made_anew_on_the_way_is_a_gap_for_those_who_know_and_a_loss_for_others(bus):
    bus.fill(100)
    bus.log.held = []
    knows = Client(bus).begin(only(A), bus.all[0][0])
    while not knows.got:
        bus.turn(0.02)
        bus.log.release()
    waits = Client(bus).begin(only(A), bus.all[0][0])
    bus.turn(0.0)
    bus.log.begin_anew()
    bus.log.answer_at_once()
    bus.fill(3)
    bus.settle()
    assert len(knows.gaps) == 1
    assert knows.gaps[0][1].until == bus.log.begin
    assert waits.recoveries[0][1].until == bus.log.begin
    assert knows.got[-3:] == waits.got == [100, 101, 102]
    assert bus.log.open == []


# A log that can't be read


def test_a_log_that_is_away_is_asked_again_with_growing_pauses(bus):
    bus.fill(100)
    bus.log.away = True
    clients = [Client(bus).begin(only(A), bus.all[number][0]) for number in range(20)]
    tail = Client(bus).begin(only(A), bus.all[98][0])
    for _ in range(500):
        bus.turn(0.02)
    assert tail.got == [99], "what the tail has needs no reading"
    assert 4 <= bus.log.replays <= 8
    bus.log.away = False
    for _ in range(300):
        bus.turn(0.02)
    for number, client in enumerate(clients):
        assert client.got == list(range(number + 1, 100))
    assert not len(bus.room)


def test_who_has_waited_for_it_long_enough_is_sent_away(bus):
    bus.fill(100)
    bus.log.away = True
    client = Client(bus).begin(only(A), bus.all[0][0])
    for _ in range(29 * 50):
        bus.turn(0.02)
    assert not client.ends
    for _ in range(4 * 50):
        bus.turn(0.02)
    assert client.ends == ["the log can't be read now"]
    assert bus.room.counts.unavailable == 1
    assert not len(bus.room)


def test_a_log_that_goes_away_on_the_way_is_gone_on_with_at_the_same_place(bus):
    bus.fill(100)
    bus.log.held = []
    client = Client(bus).begin(only(A), bus.all[0][0])
    while len(client.got) < 20:
        bus.turn(0.02)
        bus.log.release()
    bus.log.away = True
    bus.log.answer_at_once()
    for _ in range(50):
        bus.turn(0.02)
    bus.log.away = False
    bus.settle()
    assert client.got == list(range(1, 100))
    assert len(client.recoveries) == 1


def test_a_log_that_breaks_is_logged_and_asked_again(bus, logged_failures):
    bus.fill(100)
    client = Client(bus).begin(only(A), bus.all[0][0])
    replay, bus.log.replay = bus.log.replay, lambda after: 1 / 0
    for _ in range(4):
        bus.turn(0.02)
    bus.log.replay = replay
    assert [failure.type for failure in logged_failures] == [ZeroDivisionError]
    logged_failures.clear()
    bus.settle()
    assert client.got == list(range(1, 100))


# Slow clients


def test_a_client_far_behind_is_sent_only_what_it_can_take_and_has_one_reading(bus):
    bus = Bus(tail_bytes=2000, room=200, send=100)
    bus.fill(2000)
    client = Client(bus, slow=True).begin(only(A), bus.all[0][0])
    for _ in range(3000):
        bus.turn(0.02)
        client.drain(60)
    assert client.got == list(range(1, 2000))
    assert client.most <= 200 + 10 * 6
    assert bus.log.replays == 1
    bus.end()


def test_a_slow_client_slows_no_other_and_goes_on_where_it_left():
    bus = Bus(tail_bytes=2000, room=200, send=100)
    bus.fill(500)
    slow = Client(bus, slow=True).begin(only(A), bus.all[0][0])
    fast = [Client(bus).begin(only(A), bus.all[number][0]) for number in range(5)]
    for _ in range(60):
        bus.turn(0.02)
    assert slow.got
    assert len(slow.got) < 499
    for number, client in enumerate(fast):
        assert client.got == list(range(number + 1, 500))
    for _ in range(2000):
        bus.turn(0.02)
        slow.drain(80)
    assert slow.got == list(range(1, 500))
    assert bus.log.open == []
    bus.end()


def test_a_reading_that_waits_for_those_who_drain_is_not_kept_for_ever():
    bus = Bus(tail_bytes=2000, room=200, send=100)
    bus.fill(500)
    slow = Client(bus, slow=True).begin(only(A), bus.all[0][0])
    for _ in range(100):
        bus.turn(0.02)
    assert len(bus.log.open) == 1
    for _ in range(300):
        bus.turn(0.02)
    assert bus.log.open == []
    for _ in range(1000):
        bus.turn(0.02)
        slow.drain(100)
    assert slow.got == list(range(1, 500))
    assert bus.log.replays == 2
    bus.end()


def test_idle_readings_make_room_for_those_that_are_wanted():
    bus = Bus(tail_bytes=2000, room=200, send=100)
    bus.fill(500)
    slow = []
    for number in range(6):
        slow.append(Client(bus, slow=True).begin(only(A), bus.all[300 - number * 50][0]))
        for _ in range(40):
            bus.turn(0.02)
        assert slow[-1].got, "each gets a reading, though those of the others wait for them"
    assert len(bus.log.open) <= 4
    bus.end()


def test_an_event_larger_than_the_room_goes_to_a_client_that_has_drained():
    bus = Bus(tail_bytes=10**6, room=2, send=1)
    bus.fill(20)
    client = Client(bus, slow=True).begin(only(A), bus.all[0][0])
    for _ in range(200):
        bus.turn(0.02)
        client.drain(1)
    assert client.got == list(range(1, 20))
    bus.end()


# Slices


@pytest.mark.parametrize("number", [0, 498])
def test_a_crowd_is_served_in_slices(number):
    bus = Bus()
    bus.fill(500)
    clients = [Client(bus).begin(only(A), bus.all[number][0]) for _ in range(1000)]
    bus.clock.step = 0.0001
    served = []
    for _ in range(3000):
        bus.turn(0.001)
        served.append(sum(bool(client.got) for client in clients))
    assert all(client.got == list(range(number + 1, 500)) for client in clients)
    assert max(after - before for before, after in zip([0, *served], served, strict=False)) <= 40
    assert bus.log.replays == (number == 0)
    bus.end()


def test_the_tails_index_is_made_in_slices(monkeypatch):
    monkeypatch.setattr(room_module, "INDEX", 10)
    bus = Bus(tail_bytes=10**6)
    bus.fill(100)
    client = Client(bus).begin(only(A), bus.all[0][0])
    for _ in range(9):
        bus.turn()
        assert not client.got
    bus.settle()
    assert client.got == list(range(1, 100))
    bus.end()


# Who asks for less


def test_the_last_events_of_each_topic_come_before_the_next_one(bus):
    bus.log.tail._max_bytes = 10**6
    bus.fill(10, A, B)
    bus.emit(B)
    client = Client(bus).begin(only(A, B), last=2)
    bus.emit(A)
    bus.turn()
    bus.emit(B)
    bus.turn()
    assert client.recoveries == [(bus.all[21][0], None)]
    assert client.got == [18, 19, 20, 21, 22]


def test_the_last_events_of_a_group_and_of_nothing(bus):
    bus.log.tail._max_bytes = 10**6
    bus.fill(3, A, B, Topic("g", "secret"), C)
    group = Client(bus).begin(Interest(sights=frozenset({WHOLE})), last=1)
    nothing = Client(bus).begin(only(Topic("g", "none")), last=5)
    bus.turn()
    assert group.got == [8, 9]
    assert nothing.got == []
    assert nothing.live_from == 0


def test_many_last_events_are_sent_as_the_client_takes_them():
    bus = Bus(tail_bytes=10**6, room=40, send=20)
    topics = [Topic("g", str(number)) for number in range(50)]
    bus.fill(4, *topics)
    client = Client(bus, slow=True).begin(only(*topics), last=2)
    bus.turn()
    for _ in range(3):
        bus.emit(*topics[:3])
        bus.turn(0.02)
    for _ in range(200):
        bus.turn(0.02)
        client.drain(30)
    assert client.got == [n for _, _, n in bus.all[100:]]
    assert client.most <= 60
    bus.end()


@pytest.mark.parametrize("number", [0, 98])
def test_who_wants_nothing_is_only_told_whether_its_position_is_there(bus, number):
    bus.fill(100)
    client = Client(bus).begin(NOTHING, bus.all[number][0])
    bus.settle()
    assert client.recoveries == [(bus.all[number][0], None)]
    assert client.got == []


# Ends


def test_who_is_gone_leaves_nothing_behind():
    for moment in range(40):
        bus = Bus(room=200, send=100)
        bus.fill(100, A, B)
        bus.log.held = []
        clients = [Client(bus, slow=number % 2 == 0).begin(only(A), bus.all[number * 20][0]) for number in range(9)]
        clients.append(Client(bus).begin(only(A), bus.all[-1][0]._replace(offset=10**6)))
        for _ in range(moment):
            bus.turn(0.02)
            bus.log.release()
        for client in clients:
            if client.live_from is not None:
                bus.fanout.forget(bus.lane, client, client.interest)
            bus.room.forget(client)
            client.write = lambda data: 1 / 0
        for _ in range(400):
            bus.turn(0.02)
            bus.log.release()
        assert not bus.log.open
        assert not bus.clock.calls
        assert not len(bus.room._readings.line)
        bus.end()


def test_a_client_that_fails_harms_no_other(bus, logged_failures):
    bus.fill(100)
    for number in (98, 0):
        bad, good = Client(bus), Client(bus)
        bad.recovered = lambda position, lost=None: 1 / 0
        for client in (bad, good):
            client.begin(only(A), bus.all[number][0])
        for _ in range(100):
            bus.turn(0.02)
        assert good.got == list(range(number + 1, 100))
    assert ZeroDivisionError in {failure.type for failure in logged_failures}
    logged_failures.clear()


@pytest.mark.parametrize("number", [0, 5])
def test_a_fault_in_the_middle_of_a_piece_costs_nobody_else_an_event(bus, logged_failures, number):
    bus.fill(100)
    clients = [Client(bus) for _ in range(5)]
    bad = clients[2]
    bad.write = lambda data: 1 / 0
    for at, client in enumerate(clients):
        client.begin(only(A), bus.all[number * (at % 2)][0])
    for _ in range(100):
        bus.turn(0.02)
    for at, client in enumerate(clients):
        if client is not bad:
            assert client.got == list(range(number * (at % 2) + 1, 100))
    assert bad.ends == ["an internal error"]
    assert [failure.type for failure in logged_failures] == [ZeroDivisionError]
    logged_failures.clear()


def test_encodings_are_kept_within_bounds():
    calls = []

    def encode(record, number):
        calls.append(number)
        return b"x" * 40

    bus = Bus()
    bus.fill(1, A, B, C)
    (record,) = bus.log.records
    encodings = Encodings(encode, max_bytes=100)
    for number in (0, 1, 0, 1, 2, 1, 2, 0):
        assert encodings(record, number) == b"x" * 40
    assert calls == [0, 1, 2, 0]
    assert encodings._size == 80
    bus.end()


# All of it together


class Story:
    """Clients of every kind, events, stalls and answers that come late, by the dice."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        room = self.dice.choice([60, 300, 10**6])
        self.bus = Bus(
            self.dice.choice([500, 2000, 8000]),
            self.dice.choice([1, 3, 10]),
            room=room,
            send=self.dice.choice([room // 4, room]),
        )
        self.clients = []

    def wishes(self):
        """What a client wants, and what of it it has been hearing all along."""
        interest, keep = self.interest(), NOTHING
        if self.dice.random() < 0.5:
            keep = Interest(
                frozenset(topic for topic in (A, B, C) if self.dice.random() < 0.4 and self.sees(interest, topic))
            )
        return interest, keep

    def interest(self):
        topics = frozenset(topic for topic in (A, B, C, Topic("g", "secret")) if self.dice.random() < 0.4)
        sights = frozenset({WHOLE}) if self.dice.random() < 0.3 else frozenset()
        return Interest(topics, sights)

    @staticmethod
    def sees(interest, topic):
        return topic in interest.topics or any(sight.sees(topic, opens) for sight in interest.sights)

    def step(self):
        dice, bus = self.dice, self.bus
        what = dice.random()
        if what < 0.45:
            bus.emit(*(dice.choice([A, A, B, C, Topic("g", "secret")]) for _ in range(dice.randint(0, 4))))
        elif what < 0.55 and bus.all:
            since = dice.choice(bus.all)[0]
            if dice.random() < 0.3:
                since = dice.choice(bus.log.records).begin
            interest, keep = self.wishes()
            client = Client(bus, slow=dice.random() < 0.4).begin(interest, since, keep=keep)
            self.clients.append((client, since))
        elif what < 0.6:
            if bus.log.held is None:
                bus.log.held = []
            else:
                bus.log.answer_at_once()
        elif what < 0.65 and bus.log.held:
            bus.log.release()
        elif what < 0.8:
            for client, _ in self.clients:
                if dice.random() < 0.3:
                    client.drain(dice.randint(0, 400))
        else:
            bus.turn(dice.choice([0, 0, 0.02, 0.3]))

    def finish(self):
        self.bus.log.answer_at_once()
        for _ in range(4000):
            self.bus.turn(0.02)
            for client, _ in self.clients:
                client.drain()
            if not len(self.bus.room):
                break
        self.bus.emit(A, B, C)
        self.bus.turn()
        for client, since in self.clients:
            assert client.recoveries == [(since, None)]
            expected = self.bus.expected(client, since)
            assert sorted(client.got) == expected
            if not client.keep:
                assert client.got == expected
            for topic in (A, B, C):
                of_it = [n for _, t, n in self.bus.all if t == topic]
                assert [n for n in client.got if n in of_it] == [n for n in expected if n in of_it]
            assert client.most <= self.bus.room.limits.room + 6 * 256
        self.bus.end()


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_whatever_happens_everyone_gets_what_was_missed_once_and_in_order(seed):
    story = Story(seed)
    for _ in range(story.dice.randint(10, 250)):
        story.step()
    story.finish()
