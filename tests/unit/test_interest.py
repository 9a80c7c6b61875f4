"""What a session hears: topics and whole groups, and what goes on when the set is replaced."""

from hypothesis import given
from hypothesis import strategies as st

from towerbus.interest import NOTHING, Interest, Sight, handed_over
from towerbus.topics import Topic

TOPICS = [Topic("g", "a"), Topic("g", "b"), Topic("g", "ab"), Topic("h", "a"), Topic("h", "closed")]


def opens(topic):
    return frozenset() if topic.type == "closed" else frozenset(topic.type)


def heard(interest):
    """All topics that an interest is about."""
    return interest.seen(frozenset(TOPICS), opens) | interest.topics


sights = st.frozensets(st.builds(Sight, st.sampled_from("gh"), st.just(frozenset("a"))))
interests = st.builds(Interest, st.frozensets(st.sampled_from(TOPICS)), sights)


def test_nothing_is_nothing():
    assert not NOTHING
    assert not Interest(frozenset(), frozenset())
    assert Interest(frozenset(TOPICS[:1]))
    assert Interest(sights=frozenset({Sight("g", frozenset("a"))}))


def test_the_names_are_sorted():
    made = Interest(frozenset(TOPICS[:2]), frozenset({Sight("g", frozenset("a")), Sight("a", frozenset("x"))}))
    assert made.names == ["a-*", "g-*", "g-a", "g-b"]


def test_a_sight_sees_the_topics_of_its_group_that_one_of_its_badges_opens():
    sight = Sight("g", frozenset("b"))
    assert [topic for topic in TOPICS if sight.sees(topic, opens)] == [Topic("g", "b"), Topic("g", "ab")]


@given(interests, interests)
def test_what_goes_on_and_what_joins_are_what_is_wanted_each_topic_once(before, wanted):
    on, joined, without = handed_over(before, wanted, opens)
    assert heard(on) == heard(before) & heard(wanted), "what is heard before and after goes on"
    assert heard(on) | heard(joined) == heard(wanted) | heard(on)
    assert (heard(joined) - without) & heard(on) == set(), "nothing is read from the log that goes on"
    assert (heard(joined) - without) | heard(on) == heard(wanted)
    assert on.without(wanted).sights == NOTHING.sights
