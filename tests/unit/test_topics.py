"""The grammar of topics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus import topics
from towerbus.topics import TopicError


def test_an_id_and_its_text_are_the_same_type():
    assert topics.topic("job_events", 42) == topics.topic("job_events", "42")


@pytest.mark.parametrize("group", ["", "a-b", "a.b", "jobs ", "jöbs", "a/b", "jobs\n"])
def test_groups_that_no_topic_has(group):
    with pytest.raises(TopicError, match="group"):
        topics.topic(group, "x")


@pytest.mark.parametrize("type_", ["", "a b", "a/b", "é", "*", "x\n"])
def test_types_that_no_topic_has(type_):
    with pytest.raises(TopicError, match="type"):
        topics.topic("jobs", type_)


def test_a_name_has_under_100_characters():
    assert topics.topic("g", "t" * 97).name == "g-" + "t" * 97
    with pytest.raises(TopicError, match="longer than 99"):
        topics.topic("g", "t" * 98)


def test_names_and_keys_split_at_the_first_mark():
    assert topics.from_name("jobs-a-b.c") == ("jobs", "a-b.c")
    assert topics.from_routing_key("jobs.a.b-c") == ("jobs", "a.b-c")


def test_internal_groups_are_topics_but_not_for_producers():
    assert topics.topic("_towerbus", "canary").internal
    with pytest.raises(TopicError, match="internal"):
        topics.emittable("_towerbus", "canary")


@given(st.text(), st.one_of(st.text(), st.integers()))
def test_any_pair_is_a_topic_or_the_one_error(group, type_):
    try:
        made = topics.topic(group, type_)
    except TopicError:
        return
    assert topics.from_name(made.name) == made == topics.from_routing_key(made.routing_key)


@given(st.text())
def test_any_text_is_a_topic_or_the_one_error(text):
    for read in (topics.from_name, topics.from_routing_key):
        try:
            read(text)
        except TopicError as error:
            assert len(str(error)) < 400
