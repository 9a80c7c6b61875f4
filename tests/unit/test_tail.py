"""The tail of the log: its bounds, what it covers, and its index, beside a model that is a plain list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from towerbus.errors import PositionLostError
from towerbus.event import Event
from towerbus.log.record import Record
from towerbus.log.tail import OVERHEAD, Tail
from towerbus.positions import Position
from towerbus.topics import Topic

BEGIN = Position("0a", 1, 0, 0)
A, B, OTHER = Topic("g", "a"), Topic("g", "b"), Topic("h", "a")


def event(topic=A, size=10):
    return Event(topic, b"x" * size, "id", 0.0)


def record(offset, *topics, term=1, epoch="0a", size=10):
    return Record(epoch, term, offset, tuple(event(topic, size) for topic in topics))


def tail(*records, max_bytes=100_000, **given):
    made = Tail(BEGIN, max_bytes=max_bytes, **given)
    for each in records:
        made.append(each)
    return made


def places(entries):
    return [(entry.offset, entry.number) for entry in entries]


def test_an_empty_tail_covers_its_begin_only():
    empty = tail()
    assert empty.begin == empty.end == BEGIN
    assert empty.covers(BEGIN)
    assert empty.records(BEGIN) == []
    assert empty.missed(BEGIN, [A]) == ([], BEGIN)
    assert empty.last([A], 3) == []
    with pytest.raises(PositionLostError, match="past the end"):
        empty.covers(BEGIN._replace(place=1))


def test_it_lets_go_of_the_oldest_and_keeps_the_newest_whatever_its_size():
    size = 10 + 2 * OVERHEAD
    kept = tail(*(record(number, A) for number in range(5)), max_bytes=3 * size)
    assert len(kept) == 3
    assert kept.size == 3 * size
    assert kept.begin == Position("0a", 1, 1, 1)
    kept.append(record(5, A, size=10 * size))
    assert [each.offset for each in kept.records(kept.begin)] == [5]
    assert kept.begin == Position("0a", 1, 4, 1)


def test_a_size_that_is_known_is_not_counted_again():
    kept = tail()
    kept.append(record(1, A, A, size=10), size=500)
    assert kept.size == 500 + 3 * OVERHEAD
    kept.append(record(2, A), size=100_000)
    assert (len(kept), kept.size) == (1, 100_000 + 2 * OVERHEAD)


def test_what_is_too_old_goes_when_somebody_asks():
    now = [0.0]
    kept = tail(record(0, A), record(1, A), max_age=60, seconds=lambda: now[0])
    now[0] = 59.0
    kept.append(record(2, B))
    now[0] = 61.0
    assert places(kept.missed(kept.begin, [A, B]).entries) == [(2, 0)]
    assert kept.begin == Position("0a", 1, 1, 1)
    now[0] = 200.0
    assert not kept.covers(Position("0a", 1, 1, 1))
    assert kept.begin == kept.end == Position("0a", 1, 2, 1)
    assert len(kept) == kept.size == 0


def test_a_record_may_be_older_than_its_coming():
    now = [100.0]
    kept = tail(max_age=60, seconds=lambda: now[0])
    kept.append(record(0, A), at=20.0)
    assert len(kept) == 0
    kept.append(record(1, A), at=90.0)
    now[0] = 149.0
    assert kept.covers(kept.begin)
    assert len(kept) == 1


def test_every_place_is_covered_and_older_ones_are_not():
    kept = tail(record(0, A), record(1, A, A), record(4, A), max_bytes=1000 + OVERHEAD)
    begin = kept.begin
    assert begin == Position("0a", 1, 0, 1)
    for place in range(3):
        assert kept.covers(Position("0a", 1, 1, place))
    assert kept.covers(Position("0a", 1, 4, 0))
    assert kept.covers(kept.end)
    assert kept.covers(begin)
    assert not kept.covers(BEGIN)


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (Position("ff", 1, 1, 0), "another log"),
        (Position("0a", 3, 1, 0), "past the end"),
        (Position("0a", 2, 9, 0), "past the end"),
        (Position("0a", 2, 3, 2), "past the end"),
        (Position("0a", 1, 1, 3), "not in the log"),
        (Position("0a", 1, 2, 1), "not in the log"),
        (Position("0a", 1, 3, 1), "not in the log"),
    ],
)
def test_a_position_that_the_log_does_not_have_is_refused(position, words):
    kept = tail(record(0, A), record(1, A, A), record(3, A, term=2))
    with pytest.raises(PositionLostError, match=words) as caught:
        kept.covers(position)
    assert caught.value.lost.after == position
    assert kept.covers(caught.value.lost.until)


def test_it_begins_anew_at_another_place():
    kept = tail(record(0, A), record(1, B))
    assert places(kept.missed(BEGIN, [A]).entries) == [(0, 0)]
    begin = Position("0b", 9, 7, 2)
    kept.restart(begin)
    assert kept.begin == kept.end == begin
    assert kept.size == len(kept) == 0
    assert kept.missed(begin, [A, B]) == kept.missed(begin, (), ["g"]) == ([], begin)
    assert kept.last([A, B], 5) == kept.last((), 5, ["g"]) == []
    kept.append(record(8, A, term=9, epoch="0b"))
    assert places(kept.missed(begin, [A]).entries) == [(8, 0)]
    with pytest.raises(PositionLostError, match="another log"):
        kept.covers(BEGIN)


def test_the_topics_of_a_group_are_asked_about():
    kept = tail(record(0, A, B, OTHER), record(1, B))
    assert places(kept.missed(BEGIN, [], ["g"], lambda topic: topic == B).entries) == [(0, 1), (1, 0)]
    assert places(kept.missed(BEGIN, [OTHER, B], ["g"]).entries) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert places(kept.last([], 1, ["g"])) == [(0, 0), (1, 0)]
    assert places(kept.last([OTHER], 1, ["g"], lambda topic: topic == B)) == [(0, 2), (1, 0)]
    assert places(kept.last([], 2, ["g"], most=2)) == [(0, 1), (1, 0)]


def test_an_entry_knows_its_topic_and_position():
    (entry,) = tail(record(0, A, B)).missed(BEGIN, [B]).entries
    assert entry.topic == B
    assert entry.position == Position("0a", 1, 0, 2)


topics = st.sampled_from([A, B, OTHER])


class TailAndModel(RuleBasedStateMachine):
    """Whatever is done to it, the tail answers as a list of records does."""

    @initialize(bound=st.integers(500, 6000))
    def begin(self, bound):
        self.now, self.offset, self.term = 0.0, 0, 1
        self.tail = Tail(BEGIN, max_bytes=bound, max_age=100.0, seconds=lambda: self.now)
        self.bound, self.all, self.first = bound, [], BEGIN

    @rule(given=st.lists(topics, max_size=4), size=st.integers(0, 900), gap=st.integers(0, 2), terms=st.integers(0, 1))
    def append(self, given, size, gap, terms):
        self.offset += 1 + gap
        self.term += terms
        self.all.append((record(self.offset, *given, size=size, term=self.term), self.now))
        self.tail.append(self.all[-1][0])
        self._let_go()

    @rule(seconds=st.floats(0, 60))
    def time_goes_by(self, seconds):
        self.now += seconds
        self.tail.let_go()
        self._let_go()

    @rule()
    def restart(self):
        self.first = Position("0a", self.term, self.offset, 0)
        self.all = []
        self.tail.restart(self.first)

    def _let_go(self):
        def size(record):
            return sum(len(event.payload) + OVERHEAD for event in record.events) + OVERHEAD

        while self.all and (
            self.all[0][1] < self.now - 100.0
            or (sum(size(each) for each, _ in self.all) > self.bound and len(self.all) > 1)
        ):
            self.first = self.all.pop(0)[0].end

    def _positions(self):
        return [self.first] + [
            each._replace()
            for kept, _ in self.all
            for each in (kept.begin, *map(kept.position, range(len(kept.events))))
        ]

    @rule(wanted=st.lists(topics), groups=st.lists(st.sampled_from(["g", "h"])), data=st.data())
    def ask(self, wanted, groups, data):
        after = data.draw(st.sampled_from(self._positions()))
        allowed = data.draw(st.sampled_from([lambda _: True, lambda topic: topic.type == "a"]))
        assert self.tail.covers(after)
        assert self.tail.records(after) == [kept for kept, _ in self.all if kept.end > after]
        expected = [
            (kept.offset, number)
            for kept, _ in self.all
            for number, each in enumerate(kept.events)
            if kept.position(number) > after
            and (each.topic in wanted or (each.topic.group in groups and allowed(each.topic)))
        ]
        assert places(self.tail.missed(after, wanted, groups, allowed).entries) == expected
        most, found = data.draw(st.integers(1, 4)), []
        while after != self.tail.end:
            piece = self.tail.missed(after, wanted, groups, allowed, most)
            assert len(piece.entries) <= most
            assert piece.until > after
            found += places(piece.entries)
            after = piece.until
        assert found == expected

    @rule(most=st.integers(0, 4))
    def index(self, most):
        before = self.tail._indexed
        done = self.tail.index(most)
        assert self.tail._indexed >= before - len(self.all)
        assert done == (self.tail._indexed == len(self.all))

    @rule(wanted=st.sets(topics), count=st.integers(0, 3))
    def ask_last(self, wanted, count):
        expected = []
        for topic in wanted:
            found = [
                (kept.offset, number)
                for kept, _ in self.all
                for number, each in enumerate(kept.events)
                if each.topic == topic
            ]
            expected += found[len(found) - count :] if count < len(found) else found
        assert places(self.tail.last(wanted, count)) == sorted(expected)

    @invariant()
    def its_bounds(self):
        if hasattr(self, "tail"):
            assert len(self.tail) == len(self.all)
            assert self.tail.begin == self.first
            assert self.tail.end == (self.all[-1][0].end if self.all else self.first)


TestTailAndModel = TailAndModel.TestCase


@given(st.lists(st.lists(topics, min_size=1, max_size=3), min_size=1, max_size=30), st.integers(0, 3000))
def test_the_index_holds_no_more_than_the_tail(given, bound):
    kept = tail(max_bytes=bound)
    for offset, each in enumerate(given):
        kept.append(record(offset, *each))
        kept.missed(kept.end, [A])
        indexed = sum(map(len, kept._topics.values()))
        assert indexed == sum(len(each.events) for each in kept.records(kept.begin))
        assert all(kept._topics.values())


def test_the_index_is_made_in_pieces():
    kept = tail(*(record(number, A, B) for number in range(10)))
    steps = 1
    while not kept.index(most=4):
        steps += 1
    assert steps == 5
    assert sum(map(len, kept._topics.values())) == 20


@pytest.mark.parametrize("after", [0, 5, 50, 95, 99])
def test_a_piece_begins_behind_the_position_wherever_that_is(after):
    kept = tail(*(record(number, A, B) for number in range(100)))
    piece = kept.missed(Position("0a", 1, after, 1), [A], most=3)
    assert places(piece.entries) == [(offset, 0) for offset in range(after + 1, min(after + 4, 100))]
    assert piece.until == (Position("0a", 1, after + 3, 1) if after + 3 < 99 else kept.end)
