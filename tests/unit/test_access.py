"""Who may see what."""

import pytest

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
