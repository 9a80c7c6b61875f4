"""The session: the conversation in the dialect `towerbus.v1`, without any I/O."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.access import AccessRules, Grants, Identity
from towerbus.dialects.v1 import V1Dialect
from towerbus.interest import NOTHING, Interest, Sight
from towerbus.positions import Lost, Position
from towerbus.session import MAX_STRIKES, MAX_WAITING, Session, State
from towerbus.session_wire import Past
from towerbus.topics import Topic

STATUS, SUMMARY = Topic("jobs", "status_changed"), Topic("jobs", "summary")
JOBS = Sight("jobs", frozenset({""}))
NOW = Position("0a", 1, 50, 1)
SINCE = Position("0a", 1, 17, 3)


class Wire:
    """A wire that keeps what it was told, in order, and holds the session to the seam's terms."""

    def __init__(self):
        self.log, self.heard, self.past = [], NOTHING, None
        self.on_flush = lambda: None

    def send(self, message):
        assert not any(isinstance(entry, int) for entry in self.log), "sent behind the close"
        self.log.append(json.loads(message))

    def close(self, code, reason):
        self.log.append(code)

    def flush(self):
        self.on_flush()
        return NOW

    def subscribe(self, joined, left):
        assert not left.without(self.heard), "left what was not heard"
        assert joined.without(self.heard) == joined, "joined what was heard"
        self.heard = self.heard.without(left).together(joined)

    def resume(self, past):
        assert self.past is None
        self.past = past

    def abandon(self):
        assert self.past is not None
        self.past = None

    def forget(self, interest):
        assert interest == self.heard
        self.heard = NOTHING

    def ask(self, identity, topics):
        self.log.append(("ask", topics))

    def new(self):
        log, self.log = self.log, []
        return log


def session(*, identity=None, ask=False, csrf=False, stale=None, open_=True):
    wire = Wire()
    made = Session(wire, V1Dialect(), AccessRules(ask=ask))
    if open_:
        made.authenticated(identity or Identity(7, "ada"), csrf=csrf, stale=stale)
        assert wire.new()[0] == {"accept": True, "user": 7}
    return made, wire


def say(made, groups, **more):
    made.received(json.dumps({"groups": groups, **more}).encode())


def reply(current=(), left=(), joined=(), denied=(), position=NOW, **more):
    return {
        "groups_current": list(current), "groups_left": list(left), "groups_joined": list(joined), "groups_denied": list(denied),
        "position": str(position), **more,
    }  # fmt: skip


def caught_up(made, wire):
    wire.past = None
    made.caught_up()


def test_the_reply_names_the_position_and_what_is_denied():
    made, wire = session()
    say(made, {"jobs": ["summary"], "job_events": [42], "a b": ["x"], "unknown": ["*"]}, id="m")
    denied = ["a b-x", "job_events-42", "unknown-*"]
    assert wire.new() == [reply(["jobs-summary"], [], ["jobs-summary"], denied, id="m")]
    assert wire.heard == Interest(frozenset({SUMMARY}))


def test_a_whole_group_is_joined_as_far_as_the_identity_may_see_it():
    made, wire = session(identity=Identity(7, grants=Grants(("job_events/42", "metrics/*"))))
    say(made, {"jobs": ["*"], "job_events": ["*"], "control": ["*"], "metrics": ["*"], "workflow_events": ["*"]})
    (answer,) = wire.new()
    assert answer["groups_joined"] == ["control-*", "job_events-*", "jobs-*", "metrics-*"]
    assert answer["groups_denied"] == ["workflow_events-*"]
    assert wire.heard.sights == {
        JOBS, Sight("job_events", frozenset({"job_events/42"})), Sight("control", frozenset({"own:7"})), Sight("metrics", frozenset({"metrics/*"})),
    }  # fmt: skip


def test_nobody_is_asked_about_a_whole_group():
    made, wire = session(ask=True)
    say(made, {"job_events": ["*"], "jobs": ["summary"]})
    (answer,) = wire.new()
    assert answer["groups_denied"] == ["job_events-*"]
    assert answer["groups_joined"] == ["jobs-summary"]


def test_what_joins_with_since_is_read_from_the_log_first():
    made, wire = session()
    say(made, {"jobs": ["summary"]}, since=str(SINCE), id=1)
    assert wire.new() == []
    assert made.state is State.RESUMING
    assert wire.past == Past(Interest(frozenset({SUMMARY})), frozenset(), SINCE, None)
    assert wire.heard == NOTHING
    made.recovered(SINCE)
    assert wire.new() == [reply(["jobs-summary"], [], ["jobs-summary"], position=SINCE, recovered=True, id=1)]
    caught_up(made, wire)
    assert wire.new() == [{"position": str(NOW)}]
    assert wire.heard == Interest(frozenset({SUMMARY}))
    assert made.state is State.OPEN


def test_what_is_lost_is_told_in_the_reply_or_as_a_gap():
    made, wire = session()
    say(made, {"jobs": ["*"]}, since=str(SINCE))
    until = SINCE._replace(offset=30, place=0)
    made.recovered(until, Lost(SINCE, until, "why"))
    lost = {"from": str(SINCE), "to": str(until), "reason": "why"}
    assert wire.new() == [reply(["jobs-*"], [], ["jobs-*"], position=until, recovered=False, lost=lost)]
    made.missed(Lost(until, NOW, "again"))
    assert wire.new() == [{"gap": {"from": str(until), "to": str(NOW), "reason": "again"}}]
    caught_up(made, wire)
    made.missed(Lost(NOW, NOW._replace(offset=60), "live"))
    assert wire.new()[1]["gap"]["reason"] == "live"


def test_topics_that_are_kept_go_on_and_others_are_left_at_once():
    made, wire = session()
    say(made, {"jobs": ["status_changed"], "schedules": ["changed"]})
    wire.new()
    say(made, {"jobs": ["status_changed", "summary"]}, since=str(SINCE))
    assert wire.heard == Interest(frozenset({STATUS}))
    assert wire.past.interest == Interest(frozenset({SUMMARY}))
    made.recovered(SINCE)
    assert wire.new() == [
        reply(
            ["jobs-status_changed", "jobs-summary"], ["schedules-changed"], ["jobs-summary"], position=SINCE, recovered=True
        )
    ]  # fmt: skip
    caught_up(made, wire)
    assert wire.heard == Interest(frozenset({STATUS, SUMMARY}))


def test_a_topic_that_was_heard_by_its_group_is_not_repeated_by_its_name():
    made, wire = session()
    say(made, {"jobs": ["*"]})
    wire.new()
    say(made, {"jobs": ["summary"], "schedules": ["changed"]}, since=str(SINCE))
    assert wire.heard == Interest(frozenset({SUMMARY})), "it goes on without a break"
    assert wire.past.interest == Interest(frozenset({Topic("schedules", "changed")}))
    made.recovered(SINCE)
    assert wire.new()[0]["groups_joined"] == ["jobs-summary", "schedules-changed"]
    caught_up(made, wire)
    assert wire.heard == Interest(frozenset({SUMMARY, Topic("schedules", "changed")}))


def test_a_topic_that_was_heard_by_its_name_is_not_repeated_by_its_group():
    made, wire = session()
    say(made, {"jobs": ["summary"], "control": ["limit_reached_7"]})
    wire.new()
    say(made, {"jobs": ["*"]}, since=str(SINCE))
    assert wire.heard == Interest(frozenset({SUMMARY})), "it goes on without a break"
    assert wire.past == Past(Interest(sights=frozenset({JOBS})), frozenset({SUMMARY}), SINCE, None)
    made.recovered(SINCE)
    wire.new()
    caught_up(made, wire)
    assert wire.heard == Interest(sights=frozenset({JOBS}))


def test_last_comes_from_here_on():
    made, wire = session()
    say(made, {"jobs": ["summary"]}, last=5)
    assert wire.past == Past(Interest(frozenset({SUMMARY})), frozenset(), None, 5)
    made.recovered(NOW)
    caught_up(made, wire)
    assert wire.new() == [reply(["jobs-summary"], [], ["jobs-summary"]), {"position": str(NOW)}]


def test_frames_wait_while_it_resumes_and_are_bounded():
    made, wire = session()
    say(made, {"jobs": ["summary"]}, since=str(SINCE))
    say(made, {"jobs": ["summary", "status_changed"]}, since=str(SINCE), id=2)
    say(made, {}, id=3)
    made.recovered(SINCE)
    caught_up(made, wire)
    assert wire.past.interest == Interest(frozenset({STATUS}))
    assert len(wire.new()) == 2
    made.recovered(SINCE)
    caught_up(made, wire)
    assert [answer.get("id") for answer in wire.new()] == [2, None, 3]
    say(made, {"jobs": ["summary"]}, since=str(SINCE))
    for _ in range(MAX_WAITING + 1):
        made.received(b"{}")
    assert wire.new() == [1008]
    assert wire.past is None


def test_what_the_application_allows_is_resumed_as_well():
    made, wire = session(ask=True)
    say(made, {"job_events": [1, 2]}, since=str(SINCE))
    one, two = Topic("job_events", "1"), Topic("job_events", "2")
    assert wire.new() == [("ask", frozenset({one, two}))]
    made.answered(frozenset({two}))
    assert wire.past.interest == Interest(frozenset({two}))
    made.recovered(SINCE)
    assert wire.new()[0]["groups_denied"] == ["job_events-1"]


@pytest.mark.parametrize(
    ("end", "code"), [("expired", 4401), ("slow", 4408), ("unavailable", 1013), ("restarting", 1012), ("lost", None)]
)
def test_the_past_is_abandoned_when_the_session_ends(end, code):
    made, wire = session()
    say(made, {"jobs": ["status_changed"]})
    wire.new()
    say(made, {"jobs": ["status_changed", "summary"]}, since=str(SINCE))
    getattr(made, end)(*{"unavailable": ["why"], "restarting": [2.0]}.get(end, []))
    assert wire.past is None
    assert wire.heard == NOTHING
    assert [entry for entry in wire.new() if isinstance(entry, int)] == ([code] if code else [])
    made.recovered(SINCE)
    made.caught_up()
    made.missed(Lost(SINCE, NOW, "why"))
    assert wire.new() == []
    assert wire.heard == NOTHING


def test_how_v1_sessions_end():
    made, wire = session(open_=False)
    made.refused()
    (message, code) = wire.new()
    assert (message["code"], code) == ("not_authenticated", 4401)
    made, wire = session()
    made.restarting(2.0)
    assert wire.new() == [{"reconnect": {"after": 2.0}}, 1012]
    made, wire = session()
    made.unavailable("the log can't be read now")
    assert wire.new() == [{"error": "the log can't be read now: come back later", "code": "unavailable"}, 1013]
    made, wire = session()
    made.slow()
    assert wire.new() == [4408]


@pytest.mark.parametrize("when", ["groups", "since", "caught up", "expired"])
def test_a_client_that_proves_slow_by_what_came_before_a_change_is_ended_without_it(when):
    made, wire = session()
    say(made, {"jobs": ["status_changed"]})
    if when == "caught up":
        say(made, {"jobs": ["status_changed", "summary"]}, since=str(SINCE))
        made.recovered(SINCE)
    wire.new()
    wire.on_flush = made.slow
    if when == "caught up":
        caught_up(made, wire)
    elif when == "expired":
        made.expired()
    else:
        say(made, {"jobs": ["summary"]}, **({"since": str(SINCE)} if when == "since" else {}))
    if when != "expired":
        assert wire.new() == [4408]
    assert wire.heard == made.heard == NOTHING
    assert wire.past is None
    assert made.state is State.CLOSED


def test_staleness_is_told_right_after_the_accept_and_before_what_has_waited():
    wire = Wire()
    made = Session(wire, V1Dialect(), AccessRules())
    say(made, {})
    made.authenticated(Identity(7), stale=5.5)
    assert wire.new() == [{"accept": True, "user": 7}, {"stale": {"since": 5.5}}, reply()]


def test_a_position_is_told_when_it_is_newer_than_the_one_told_last():
    made, wire = session()
    assert made.keepalive(NOW) is None, "it hears nothing"
    say(made, {"jobs": ["summary"]})
    wire.new()
    assert made.keepalive(NOW) is None, "the reply has told it"
    later = NOW._replace(offset=60)
    assert json.loads(made.keepalive(later)) == {"position": str(later)}
    assert made.keepalive(later) is None
    say(made, {"jobs": ["summary", "status_changed"]}, since=str(SINCE))
    assert made.keepalive(later._replace(offset=70)) is None, "it is catching up"


def test_errors_echo_the_id_and_keep_the_set():
    made, wire = session(csrf="tok")
    say(made, {"jobs": ["summary"]}, id=1)
    say(made, {"jobs": ["summary"]}, id=2, xrftoken="tok", since="x")
    made.received(None)
    errors = wire.new()
    assert [(error["code"], error.get("id")) for error in errors] == [
        ("access_denied", 1), ("bad_position", 2), ("malformed", None),
    ]  # fmt: skip
    assert wire.heard == NOTHING


def test_repeated_abuse_is_ended():
    made, wire = session()
    for _ in range(MAX_STRIKES + 5):
        made.received(b"{")
    assert wire.new()[-1] == 1008


names = st.sampled_from(["status_changed", "summary", "*", "x"])
groups = st.dictionaries(st.sampled_from(["jobs", "schedules", "job_events"]), st.lists(names, max_size=3))
steps = st.lists(
    st.tuples(groups, st.sampled_from(["", "since", "last"]), st.sampled_from(["caught up", "not yet"])), max_size=8
)


@given(steps, st.booleans())
def test_whatever_is_wished_one_after_the_other_is_heard_in_the_end(wishes, granted):
    identity = Identity(7, grants=Grants(("job_events/*",) if granted else ("job_events/x",)))
    made, wire = session(identity=identity)
    for wished, how, when in wishes:
        say(made, wished, **{"since": {"since": str(SINCE)}, "last": {"last": 3}}.get(how, {}))
        if made.state is State.RESUMING and when == "caught up":
            made.recovered(SINCE)
            caught_up(made, wire)
    while made.state is State.RESUMING:
        made.recovered(SINCE)
        caught_up(made, wire)
    fresh, expected = session(identity=identity)
    if wishes:
        say(fresh, wishes[-1][0])
    assert wire.heard == expected.heard == made.heard
    assert len([entry for entry in wire.new() if "groups_current" in entry]) == len(wishes)
