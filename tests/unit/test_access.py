"""Who may see what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.access import AccessRules, Grants, Identity, Rule, Verdict, Who, default_rules
from towerbus.errors import ConfigError
from towerbus.topics import Topic, topic

ADA = Identity(7, "ada")
ALL = Identity(1, "all", Grants(("*",), ("*",)))


def verdict(identity, name, *, ask=False, rules=None):
    group, type_ = name.split("/")
    return AccessRules(rules, ask=ask).verdict(identity, topic(group, type_))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jobs/status_changed", Verdict.ALLOWED),
        ("schedules/changed", Verdict.ALLOWED),
        ("inventories/status_changed", Verdict.ALLOWED),
        ("control/limit_reached_7", Verdict.ALLOWED),
        ("control/limit_reached_8", Verdict.DENIED),
        ("control/limit_reached_17", Verdict.DENIED),
        ("control/limit_reached", Verdict.DENIED),
        ("job_events/42", Verdict.DENIED),
        ("workflow_events/1", Verdict.DENIED),
        ("unknown/x", Verdict.DENIED),
        ("broadcast/group_send", Verdict.DENIED),
        ("_towerbus/canary", Verdict.DENIED),
    ],
)
def test_what_an_identity_without_grants_sees(name, expected):
    assert verdict(ADA, name) is expected


@pytest.mark.parametrize(
    ("grant", "name", "expected"),
    [
        ("job_events/42", "job_events/42", Verdict.ALLOWED),
        ("job_events/42", "job_events/43", Verdict.DENIED),
        ("job_events/42", "ad_hoc_command_events/42", Verdict.DENIED),
        ("job_events/*", "job_events/43", Verdict.ALLOWED),
        ("*/42", "job_events/42", Verdict.ALLOWED),
        ("*/42", "job_events/43", Verdict.DENIED),
        ("*/*", "job_events/43", Verdict.ALLOWED),
        ("job_ev*/42", "job_events/42", Verdict.DENIED),
        ("job_events", "job_events/42", Verdict.DENIED),
        ("metrics/cpu", "metrics/cpu", Verdict.ALLOWED),
        ("control/*", "control/limit_reached_8", Verdict.DENIED),
        ("*/*", "_towerbus/canary", Verdict.DENIED),
    ],
)
def test_what_a_grant_lets_see(grant, name, expected):
    assert verdict(Identity(7, grants=Grants((grant,))), name) is expected


def test_the_grant_of_everything_passes_all_rules_but_nobody_and_internal_topics():
    assert verdict(ALL, "control/limit_reached_8") is Verdict.ALLOWED
    assert verdict(ALL, "unknown/x") is Verdict.ALLOWED
    assert verdict(ALL, "_towerbus/canary") is Verdict.DENIED
    assert verdict(ALL, "jobs/x", rules=[Rule(("jobs",), Who.NOBODY)]) is Verdict.DENIED


@pytest.mark.parametrize("user", ["reached_7", "", "limit_reached_7", "_7"])
def test_a_text_that_ends_like_an_id_is_not_that_user(user):
    assert verdict(Identity(user), "control/limit_reached_7") is Verdict.DENIED
    assert verdict(Identity("ada"), "control/limit_reached_ada") is Verdict.ALLOWED


def test_the_application_is_asked_only_where_no_grant_decides():
    assert verdict(ADA, "job_events/42", ask=True) is Verdict.ASK
    assert verdict(Identity(7, grants=Grants(("job_events/42",))), "job_events/42", ask=True) is Verdict.ALLOWED
    assert verdict(ADA, "unknown/x", ask=True) is Verdict.DENIED


def test_the_first_rule_that_names_the_topic_decides():
    rules = [Rule(("jobs",), Who.NOBODY, ("secret_*",)), Rule(("jobs",), Who.EVERYONE)]
    assert verdict(ADA, "jobs/secret_1", rules=rules) is Verdict.DENIED
    assert verdict(ADA, "jobs/open", rules=rules) is Verdict.ALLOWED
    assert verdict(ADA, "other/open", rules=rules) is Verdict.DENIED


def test_to_ask_needs_somebody_to_ask():
    with pytest.raises(ConfigError, match="--ask-url"):
        AccessRules(default_rules(ask=True), ask=False)


def test_emitting_is_a_grant_of_its_own():
    grants = Grants(subscribe=("*",), emit=("jobs/*",))
    assert grants.may_emit(topic("jobs", "x"))
    assert not grants.may_emit(topic("job_events", "1"))
    assert not Grants(subscribe=("*",)).may_emit(topic("jobs", "x"))
    assert not ALL.grants.may_emit(Topic("_towerbus", "x"))


groups = st.sampled_from(["jobs", "control", "job_events", "metrics", "_towerbus"])
types = st.sampled_from(["x", "42", "limit_reached_7", "limit_reached_ada", "x_a_7", "_7", "limit_"])
users = st.sampled_from([7, "7", "ada", "a_7", "", "_7", "own:7", "jobs/x"])
patterns = st.lists(st.one_of(
    st.just("*"), st.builds("{}/{}".format, st.sampled_from(["jobs", "job_events", "control", "*", "own:7", "x"]), st.sampled_from(["x", "42", "*", "limit_reached_8"])),
    st.text("*/x:", max_size=4),
))  # fmt: skip
rules = st.lists(
    st.builds(
        Rule,
        groups=st.lists(st.sampled_from(["jobs", "job*", "*", "control", "?etrics"]), min_size=1, max_size=2).map(
            tuple
        ),
        who=st.sampled_from(list(Who)),
        types=st.lists(st.sampled_from(["*", "x", "4?", "*_7", "**"]), min_size=1, max_size=2).map(tuple),
    ),
    max_size=5,
)


@given(rules, users, patterns, groups, types)
def test_a_sight_holds_exactly_what_the_rules_allow_without_asking(made, user, granted, group, type_):
    access = AccessRules(made, ask=True)
    identity = Identity(user, grants=Grants(tuple(granted)))
    name = topic(group, type_)
    allowed = access.verdict(identity, name) is Verdict.ALLOWED
    assert access.sight(identity, group).sees(name, access.opens) is allowed


@pytest.mark.parametrize("who", [Who.OWN, Who.GRANTED, Who.ASK, Who.NOBODY])
def test_a_topic_with_a_rule_of_its_own_is_not_seen_by_what_opens_the_rest_of_its_group(who):
    access = AccessRules([Rule(("jobs",), who, ("*_7",)), Rule(("jobs",), Who.EVERYONE)], ask=True)
    owned = topic("jobs", "limit_reached_7")
    seen = {
        user: access.sight(Identity(user, grants=Grants(granted)), "jobs").sees(owned, access.opens)
        for user, granted in {7: (), 8: (), 9: ("jobs/limit_reached_7",), 10: ("*",)}.items()
    }
    assert seen == {
        7: who is Who.OWN,
        8: False,
        9: who in {Who.GRANTED, Who.ASK},
        10: who is not Who.NOBODY,
    }
    assert access.sight(Identity(8), "jobs").sees(topic("jobs", "x"), access.opens)


@given(rules, users, patterns, groups)
def test_a_sight_without_badges_sees_nothing_of_its_group(made, user, granted, group):
    access = AccessRules(made, ask=True)
    identity = Identity(user, grants=Grants(tuple(granted)))
    if any(
        access.verdict(identity, topic(group, type_)) is Verdict.ALLOWED for type_ in ("x", "42", "limit_reached_7")
    ):
        assert access.sight(identity, group).badges


def test_those_who_may_see_the_same_have_equal_sights():
    access = AccessRules(ask=True)
    bob = Identity(8, "bob", Grants(("job_events/1", "metrics/*")))
    assert access.sight(ADA, "jobs") == access.sight(bob, "jobs") == access.sight(ALL, "jobs")
    assert access.sight(bob, "job_events") == access.sight(Identity(9, grants=Grants(("job_events/1",))), "job_events")
    assert access.sight(ADA, "control") != access.sight(bob, "control")
    assert access.sight(ADA, "job_events").badges == frozenset(), "nobody is asked about a whole group"
    assert access.sight(ADA, "_towerbus").badges == access.sight(ALL, "_towerbus").badges == frozenset()


def test_what_opens_a_topic_is_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr("towerbus.access.MAX_REMEMBERED", 100)
    access = AccessRules()
    for number in range(1000):
        assert access.opens(topic("jobs", number)) == {""}
    assert len(access._opens) <= 100


def test_which_rules_are_about_a_group_is_remembered_within_bounds_and_forgotten_with_the_rules(monkeypatch):
    monkeypatch.setattr("towerbus.access.MAX_REMEMBERED", 100)
    access = AccessRules()
    for number in range(1000):
        assert access.verdict(ADA, topic(f"group_{number}", "x")) is Verdict.DENIED
    assert len(access._of_group) <= 100
    assert access.verdict(ADA, topic("jobs", "x")) is Verdict.ALLOWED
    access.become(AccessRules([Rule(groups=("jobs",), who=Who.NOBODY)]))
    assert access.verdict(ADA, topic("jobs", "x")) is Verdict.DENIED


def test_topics_are_judged_together_as_each_alone():
    access = AccessRules(ask=True)
    topics = {topic("jobs", "x"), topic("control", "limit_reached_8"), topic("job_events", 1), topic("unknown", "x")}
    judged = access.judged(ADA, topics)
    assert judged.allowed == {each for each in topics if access.verdict(ADA, each) is Verdict.ALLOWED} != set()
    assert judged.ask == {each for each in topics if access.verdict(ADA, each) is Verdict.ASK} != set()
