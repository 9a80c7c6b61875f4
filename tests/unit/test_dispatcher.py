"""The dispatcher: who gets which bytes in a turn."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from towerbus.dispatcher import Lane
from towerbus.event import Event
from towerbus.log.record import Record
from towerbus.topics import Topic


def record(*names, offset=0):
    events = tuple(
        Event(Topic("g", name), b"<%d:%s>" % (number, name.encode()), str(number), 0)
        for number, name in enumerate(names)
    )
    return Record("0", 1, offset, events)


def plain(record, place):
    return record.events[place].payload


def topics(*names):
    return [Topic("g", name) for name in names]


def turn(lane, *names):
    made = record(*names)
    for place in range(len(names)):
        lane.take(made, place)
    got = {}
    for members, data in lane.cohorts():
        for member in members:
            assert member not in got, "a member stands in two cohorts"
            got[member] = data
    return {member: data for member, data in got.items() if data}


def test_events_of_one_topic_go_to_its_audience_as_one_piece():
    lane = Lane(plain)
    lane.join("ada", topics("a"))
    lane.join("bob", topics("b"))
    assert turn(lane, "a", "a") == {"ada": b"<0:a><1:a>"}


def test_an_event_without_audience_is_not_even_encoded():
    lane = Lane(lambda record, place: 1 / 0)
    assert lane.take(record("a"), 0) == 0
    assert turn(lane, "a") == {}


def test_an_event_is_encoded_once_for_all():
    calls = Counter()

    def encode(record, place):
        calls[place] += 1
        return b"x"

    lane = Lane(encode)
    for member in range(100):
        lane.join(member, topics("a"))
    turn(lane, "a", "a", "a")
    assert set(calls.values()) == {1}


def test_a_thousand_sets_that_share_a_topic_are_one_cohort():
    lane = Lane(plain)
    for member in range(1000):
        lane.join(member, topics("shared", f"own{member}"))
    lane.take(record("shared"), 0)
    ((members, data),) = lane.cohorts()
    assert (len(members), data) == (1000, b"<0:shared>")


def test_who_has_left_gets_nothing_and_an_empty_topic_is_forgotten():
    lane = Lane(plain)
    lane.join("ada", topics("a", "b"))
    lane.leave("ada", topics("a"))
    assert turn(lane, "a", "b") == {"ada": b"<1:b>"}
    lane.leave("ada", topics("b"))
    assert lane.topics == 0


def test_a_member_that_goes_between_an_event_and_the_end_of_the_turn_gets_nothing():
    lane = Lane(plain)
    lane.join("ada", topics("a"))
    lane.take(record("a"), 0)
    lane.leave("ada", topics("a"))
    assert [members for members, _ in lane.cohorts() if members] == []


@given(
    st.dictionaries(st.integers(0, 8), st.sets(st.sampled_from("abcde"))),
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=12), max_size=4),
)
def test_everyone_gets_exactly_the_events_of_their_topics_in_order(wishes, turns):
    lane = Lane(plain)
    for member, names in wishes.items():
        lane.join(member, topics(*names))
    for names in turns:
        expected = {
            member: b"".join(b"<%d:%s>" % (n, name.encode()) for n, name in enumerate(names) if name in wish)
            for member, wish in wishes.items()
        }
        assert turn(lane, *names) == {member: data for member, data in expected.items() if data}
