"""Where a reply says at which place a set is replaced, nothing at the seam can be missing unseen."""

from hypothesis import assume, given
from hypothesis import strategies as st
from support.plans import TOPICS, always, plans, sets, wanted

from towerbus.bench.ledger import DISORDERED, LOST, Faults, Ledger
from towerbus.bench.places import Places
from towerbus.bench.schedule import Schedule
from towerbus.bench.seams import Seams


def position(number):
    """Behind which the event of a number is the first."""
    return f"e-1-{number}-1"


@st.composite
def replacements(draw):
    """A plan, and the sets that a client has, each with the number from which on it holds and before which it ends."""
    plan, steps = draw(plans), draw(st.lists(sets, min_size=2, max_size=6))
    cuts = sorted(
        draw(st.lists(st.integers(0, len(plan)), min_size=len(steps) - 1, max_size=len(steps) - 1, unique=False))
    )
    return plan, list(zip(steps, [0, *cuts], [*cuts, len(plan)], strict=True))


def account(plan, held, got, known=lambda _: True):
    """What is found of a client that gets these events, set by set."""
    schedule, faults, places = Schedule(TOPICS, plan), Faults(), Places()
    made = Ledger("client 1", schedule.feed(held[0][0]), faults)
    made.begin(schedule.feed(held[0][0]), 0)
    made.seams = Seams(places, made.feed, 0)
    # What others are told of an event may come long after this client should have got it.
    for number, ((topics, start, _), events) in enumerate(zip(held, got, strict=True)):
        if number:
            made.replace(schedule.feed(topics), 1.0, position(start))
        for event in events:
            made.take(event, always)
    for event in filter(known, range(len(plan))):
        places.differs(event, position(event + 1), 0.0)
    made.close_account(len(plan), always)
    return dict(faults.counts)


def all_of(plan, held):
    return [wanted(plan[:end], topics, start) for topics, start, end in held]


@given(replacements(), st.data())
def test_the_truth_is_no_fault_whatever_is_known_of_it(given, data):
    plan, held = given
    known = data.draw(st.sets(st.integers(0, len(plan) - 1)))
    assert account(plan, held, all_of(plan, held), known.__contains__) == {}


@given(replacements(), st.data())
def test_what_is_missing_under_the_last_two_sets_is_lost_wherever_it_stood(given, data):
    """Places are known at the end alone here. Where what is missing was of a kept topic, it may stand for more."""
    plan, held = given
    got = all_of(plan, held)
    late = [(number, event) for number, events in enumerate(got) for event in events if number >= len(got) - 2]
    assume(late)
    number, event = data.draw(st.sampled_from(late))
    got[number].remove(event)
    assert account(plan, held, got).keys() == {LOST}


@given(replacements(), st.data())
def test_two_that_are_swapped_are_not_also_lost(given, data):
    plan, held = given
    got = all_of(plan, held)
    pairs = [(events, at) for events in got for at in range(len(events) - 1)]
    assume(pairs)
    events, at = data.draw(st.sampled_from(pairs))
    events[at], events[at + 1] = events[at + 1], events[at]
    assert account(plan, held, got) == {DISORDERED: 1}


def test_places_that_are_told_in_time_show_what_was_missing_under_any_set():
    schedule, faults, places = Schedule(TOPICS, [0, 1, 2, 3]), Faults(), Places()
    made = Ledger("client 1", schedule.feed([0]), faults)
    made.begin(made.feed, 0)
    made.seams = Seams(places, made.feed, 0)
    for event in range(4):
        places.differs(event, position(event + 1), 0.0)
        # Each set holds for one event, and none of them comes.
        made.replace(schedule.feed([(event + 1) % 4]), 1.0, position(event + 1))
    made.close_account(4, always)
    assert faults.counts == {LOST: 4}
