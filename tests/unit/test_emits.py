"""What was emitted and is not in the log yet."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.log.emits import OVERHEAD, Emits
from towerbus.log.window import IdWindow
from towerbus.topics import Topic


def events(*ids, size=10):
    return [Event(Topic("g", "t"), b"x" * size, id_, 0.0) for id_ in ids]


def heard(outcome):
    """What became of an emit; it may be asked for again."""
    found = []
    outcome.addBoth(found.append)
    return found


@pytest.fixture
def emits():
    return Emits(IdWindow(), 10_000)


def ids(entries):
    return [event.id for entry in entries for event in entry.events]


def test_it_is_confirmed_when_it_is_said(emits):
    one = heard(emits.put(events("a", "b")))
    assert emits.queued
    taken = emits.take()
    assert ids(taken) == ["a", "b"]
    assert not emits.queued
    emits.landed(taken)
    assert not one
    emits.confirm(taken)
    assert one == [None]
    assert emits.size == 0


def test_an_id_that_is_in_the_log_is_confirmed_at_once(emits):
    emits.window.add(events("a"))
    assert heard(emits.put(events("a"))) == [None]
    assert heard(emits.put([])) == [None]
    assert not emits.queued


def test_an_id_that_is_under_way_waits_for_the_first(emits):
    one, two = heard(emits.put(events("a", "a"))), heard(emits.put(events("a")))
    taken = emits.take()
    three = heard(emits.put(events("a", "b")))
    assert ids(taken) == ["a"]
    emits.landed(taken)
    emits.confirm(taken)
    assert one == two == [None]
    assert not three
    rest = emits.take()
    assert ids(rest) == ["b"]
    emits.landed(rest)
    emits.confirm(rest)
    assert three == [None]


def test_it_is_bounded_except_for_one_that_stands_alone(emits):
    emits.put(events("large", size=20_000))
    refused = emits.put
    with pytest.raises(BusUnavailable, match="come back") as caught:
        refused(events("b", "c"))
    assert caught.value.ids == ("b", "c")
    emits.put(events("large", size=20_000))  # joins
    taken = emits.take()
    emits.landed(taken)
    emits.confirm(taken)
    emits.put(events("b"))
    assert emits.size == 10 + OVERHEAD


def test_one_that_failed_may_be_emitted_again(emits):
    one = heard(emits.put(events("a")))
    emits.failed(emits.take(), BusUnavailable("full"))
    assert (type(one[0].value), one[0].value.ids, one[0].value.reason) == (BusUnavailable, ("a",), "full")
    assert emits.size == 0
    emits.put(events("a"))
    assert ids(emits.take()) == ["a"]


@pytest.mark.parametrize("error", [BusUnavailable("full"), NotConfirmed("unknown")])
def test_who_shares_in_a_failure_hears_which_part_failed(emits, error):
    emits.window.add(events("in"))
    emits.put(events("a")).addErrback(lambda _: None)
    first = emits.take()
    both, some = heard(emits.put(events("a", "b"))), heard(emits.put(events("in", "a")))
    emits.failed(first, error)
    assert (type(some[0].value), some[0].value.ids) == (NotConfirmed, ("a",))
    assert not both
    second = emits.take()
    emits.landed(second)
    emits.confirm(second)
    assert (type(both[0].value), both[0].value.ids) == (NotConfirmed, ("a",))


def test_doubt_frees_those_who_wait_and_the_id_stays_under_way(emits):
    one = heard(emits.put(events("a")))
    taken = emits.take()
    emits.doubt(taken, "slow")
    assert (type(one[0].value), one[0].value.ids) == (NotConfirmed, ("a",))
    two = heard(emits.put(events("a")))
    assert not emits.queued
    emits.landed(taken)
    emits.confirm(taken)
    assert two == [None]


some_ids = st.lists(st.sampled_from("abcdefg"), max_size=4)


class EmitsAndModel(RuleBasedStateMachine):
    """No id is in the log twice, every emit is answered once, and truly."""

    @initialize()
    def begin(self):
        self.emits = Emits(IdWindow(), 3000)
        self.log, self.under_way, self.landed, self.outcomes = [], [], [], []

    @rule(given=some_ids)
    def put(self, given):
        try:
            outcome = self.emits.put(events(*given))
        except BusUnavailable:
            assert self.emits.size > 0
            return
        self.outcomes.append((given, found := []))
        outcome.addBoth(found.append)

    @rule()
    def write(self):
        self.under_way += self.emits.take()

    @rule(how=st.sampled_from(["landed", "full", "unknown"]))
    def comes_back(self, how):
        entries, self.under_way = self.under_way, []
        if how == "landed":
            self.log += ids(entries)
            self.emits.landed(entries)
            self.landed += entries
        else:
            self.emits.failed(entries, BusUnavailable("full") if how == "full" else NotConfirmed("unknown"))

    @rule()
    def confirm(self):
        entries, self.landed = self.landed, []
        self.emits.confirm(entries)

    @rule()
    def doubt(self):
        self.emits.doubt(self.under_way, "slow")

    @invariant()
    def truth(self):
        if not hasattr(self, "emits"):
            return
        assert len(self.log) == len(set(self.log))
        for given, found in self.outcomes:
            assert len(found) <= 1
            if found == [None]:
                assert set(given) <= set(self.log)
            elif found:
                assert set(found[0].value.ids) <= set(given)
                assert set(given) - set(found[0].value.ids) <= set(self.log)

    def teardown(self):
        if hasattr(self, "emits"):
            self.write()
            self.comes_back("landed")
            self.confirm()
            assert self.emits.size == 0
            assert all(len(found) == 1 for _, found in self.outcomes)
            assert not self.emits._by_id


TestEmitsAndModel = EmitsAndModel.TestCase
