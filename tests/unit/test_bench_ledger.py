"""Whatever a true server may do is no fault; and each thing that is untrue is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import TOPICS, always, plans, sets, wanted

from towerbus.bench.ledger import CHANGED, DISORDERED, LOST, REPEATED, STRAY, Faults, Ledger
from towerbus.bench.schedule import Schedule


def ledger(plan, topics):
    schedule = Schedule(TOPICS, plan)
    faults = Faults()
    made = Ledger("client 1", schedule.feed(topics), faults)
    made.begin(schedule.feed(topics), 0)
    return schedule, made, faults


def untruths(plan, topics, got):
    _, made, faults = ledger(plan, topics)
    for number in got:
        made.take(number, always)
    made.close_account(len(plan), always)
    return dict(faults.counts)


@given(plans, sets)
def test_the_truth_is_no_fault(plan, topics):
    assert untruths(plan, topics, wanted(plan, topics)) == {}


@given(plans, sets, st.data())
def test_each_untruth_is_named(plan, topics, data):
    got = wanted(plan, topics)
    strangers = [number for number in range(len(plan)) if number not in got]
    if strangers:
        place = data.draw(st.integers(0, len(got)))
        stranger = data.draw(st.sampled_from(strangers))
        assert untruths(plan, topics, [*got[:place], stranger, *got[place:]]) == {STRAY: 1}
    if got:
        place = data.draw(st.integers(0, len(got) - 1))
        assert untruths(plan, topics, got[:place] + got[place + 1 :]) == {LOST: 1}
        later = data.draw(st.integers(place + 1, len(got)))
        assert untruths(plan, topics, [*got[:later], got[place], *got[later:]]) == {REPEATED: 1}
    if len(got) > 1:
        place = data.draw(st.integers(0, len(got) - 2))
        swapped = [*got[:place], got[place + 1], got[place], *got[place + 2 :]]
        assert untruths(plan, topics, swapped) == {DISORDERED: 1}


@given(plans, st.lists(sets, min_size=2, max_size=5), st.data())
def test_a_set_may_be_replaced_anywhere(plan, steps, data):
    """The server chooses a place for each reply; what comes before and behind it follows."""
    schedule, made, faults = ledger(plan, steps[0])
    places = sorted(data.draw(st.lists(st.integers(0, len(plan)), min_size=len(steps) - 1, max_size=len(steps) - 1)))
    for number, (start, end) in enumerate(zip([0, *places], [*places, len(plan)], strict=True)):
        if number:
            made.replace(schedule.feed(steps[number]), 1.0)
        for event in wanted(plan[:end], steps[number], start):
            assert made.take(event, always)
    assert made.complete(len(plan), always)
    made.close_account(len(plan), always)
    assert faults.total == 0


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        # Topic 0 is kept, 1 is left and 2 is joined; the plan is 0 1 2 0 1 2 0 1 2.
        ([0, 1], [5, 6, 8], {LOST: 1}),  # 3 is of the kept one
        ([0, 1, 3], [5, 6, 8], {}),
        (
            [0, 1, 3, 4],
            [6, 8],
            {LOST: 1},
        ),  # 6 shows that 4 was the last of the old set: 5 is missing unless sent before
        ([0, 1], [2, 3, 5, 6, 8], {}),
        ([0, 1], [3, 4, 5, 6, 8], {STRAY: 1}),
        ([0, 1, 3], [3, 5, 6, 8], {REPEATED: 1}),
    ],
)
def test_what_replacing_does_not_excuse(before, after, found):
    plan = [0, 1, 2] * 3
    schedule, made, faults = ledger(plan, [0, 1])
    for number in before:
        made.take(number, always)
    made.replace(schedule.feed([0, 2]), 1.0)
    sent = always if before[-1] != 4 else lambda number: 0.0 if number < 5 else 2.0
    for number in after:
        made.take(number, sent)
    made.close_account(len(plan), sent)
    assert dict(faults.counts) == found


def test_what_is_sent_behind_the_reply_must_come():
    schedule, made, faults = ledger([0, 1, 1, 1], [0])
    made.take(0, always)
    made.replace(schedule.feed([1]), 5.0)
    assert made.complete(4, float)  # sent at 0, 1, 2 and 3 seconds: all of that may have been before
    assert not made.complete(4, lambda number: 4.0 + number)
    made.take(3, lambda number: 4.0 + number)
    made.close_account(4, float)
    assert dict(faults.counts) == {LOST: 1}
    assert "event 2" in faults.examples[0]


def test_a_changed_event_is_not_also_lost():
    _, made, faults = ledger([0, 0, 0], [0])
    made.take(0, always)
    made.changed(1, "odd")
    made.take(2, always)
    made.close_account(3, always)
    assert dict(faults.counts) == {CHANGED: 1}


def test_who_is_excused_lacks_nothing_but_what_others_came_behind():
    plan = [0] * 6
    _, made, faults = ledger(plan, [0])
    for number in (0, 1, 3):
        made.take(number, always)
    made.excuse()
    assert faults.counts == {LOST: 1}
    assert faults.examples == ["lost: client 1 did not get event 2"]


def test_few_are_told_in_words_and_all_are_counted():
    plan = [0] * 30_000
    schedule, made, faults = ledger(plan, [0])
    made.close_account(len(plan), always)
    assert faults.counts[LOST] == 30_000
    assert len(faults.examples) <= 11
    assert schedule.feed([0]) is schedule.feed((0,))
