"""The dispatcher: who gets which bytes in a turn."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from towerbus.dispatcher import Lane
from towerbus.event import Event
from towerbus.interest import Interest, Sight
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
    return Interest(frozenset(Topic("g", name) for name in names))


def whole(group, *badges):
    return Interest(sights=frozenset({Sight(group, frozenset(badges))}))


def opens(topic):
    """A topic is opened by its type's letters; in the group `closed` by nothing."""
    return frozenset() if topic.group == "closed" else frozenset(topic.type)


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


def test_a_cohort_stands_in_the_order_of_joining():
    names = [f"{number * 7919 % 1000:03}" for number in range(1000)]
    lane = Lane(plain, opens)
    for name in names:
        lane.join(name, topics("shared"))
        lane.join(name, whole("g", "w"))
    lane.join("zoe", topics("b"))
    for name in ("shared", "w"):
        lane.take(record(name), 0)
        ((members, _),) = lane.cohorts()
        assert list(members) == names
    lane.leave(names[3], topics("shared"))
    lane.join(names[500], topics("b"))
    for name in ("shared", "b"):
        lane.take(record(name), 0)
    (largest, _), *_ = lane.cohorts()
    assert list(largest) == [name for name in names if name not in {names[3], names[500]}]


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


def test_who_hears_a_whole_group_gets_what_one_of_the_badges_opens():
    lane = Lane(plain, opens)
    lane.join("ada", whole("g", "a"))
    lane.join("bob", whole("g", "b", "c"))
    lane.join("eve", whole("closed", "a"))
    assert turn(lane, "a", "b", "bc", "x") == {"ada": b"<0:a>", "bob": b"<1:b><2:bc>"}


def test_who_hears_a_topic_by_itself_and_by_its_group_gets_it_once():
    lane = Lane(plain, opens)
    lane.join("ada", topics("a").together(whole("g", "a", "b")))
    assert turn(lane, "a", "ab") == {"ada": b"<0:a><1:ab>"}
    lane.leave("ada", topics("a"))
    assert turn(lane, "a") == {"ada": b"<0:a>"}
    lane.leave("ada", whole("g", "a", "b"))
    assert turn(lane, "a") == {}


def test_an_event_that_no_holder_may_see_is_not_even_encoded():
    lane = Lane(lambda record, place: 1 / 0, opens)
    lane.join("ada", whole("g", "b"))
    assert lane.take(record("a"), 0) == 0


def test_topics_of_other_groups_ask_for_no_badges():
    asked = []
    lane = Lane(plain, lambda topic: asked.append(topic) or frozenset("a"))
    lane.join("ada", whole("other", "a"))
    lane.join("bob", topics("a"))
    assert turn(lane, "a", "b") == {"bob": b"<0:a>"}
    assert asked == []


@given(
    st.dictionaries(st.integers(0, 8), st.tuples(st.sets(st.sampled_from("abcde")), st.sets(st.sampled_from("abc")))),
    st.lists(st.lists(st.sampled_from(["a", "b", "ab", "c", "d", "f"]), max_size=12), max_size=4),
)
def test_groups_and_topics_together_give_each_event_once_in_order(wishes, turns):
    lane = Lane(plain, opens)
    for member, (names, badges) in wishes.items():
        lane.join(member, topics(*names))
        lane.join(member, whole("g", *badges) if badges else Interest())
    for names in turns:
        expected = {
            member: b"".join(
                b"<%d:%s>" % (n, name.encode()) for n, name in enumerate(names) if name in wished or badges & set(name)
            )
            for member, (wished, badges) in wishes.items()
        }
        assert turn(lane, *names) == {member: data for member, data in expected.items() if data}
    for member, (names, badges) in wishes.items():
        lane.leave(member, topics(*names).together(whole("g", *badges) if badges else Interest()))
    assert lane.topics == 0
    assert lane._holders == {}


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


@given(
    st.lists(st.sampled_from("abcd"), max_size=8),
    st.sets(st.sampled_from("abcd")),
    st.sampled_from(["none", "g", "closed"]),
    st.integers(0, 8),
)
def test_whoever_hears_something_is_not_passed_over(names, named, group, begin):
    lane = Lane(plain, opens)
    if named:
        lane.join("ada", topics(*named))
    if group != "none":
        lane.join("bob", whole(group, "a", "b"))
    made = record(*names)
    heard = lane.heard(made, begin)
    assert list(heard) == sorted(heard)
    assert all(begin <= number < len(names) for number in heard)
    taken = {number for number in range(begin, len(names)) if lane.take(made, number)}
    assert taken <= set(heard)
    if group == "none":
        assert taken == set(heard)
