"""The session: the conversation in the dialect `tower`, without any I/O."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.access import AccessRules, Grants, Identity, Rule, Who
from towerbus.dialects.tower import TowerDialect
from towerbus.interest import NOTHING
from towerbus.positions import Position
from towerbus.session import MAX_STRIKES, MAX_WAITING, Session, State
from towerbus.topics import Topic

JOBS = Topic("jobs", "status_changed")
SUMMARY = Topic("jobs", "summary")


class Wire:
    """A wire that keeps what it was told, in order."""

    def __init__(self):
        self.log, self.heard_of = [], NOTHING
        self.position = Position("0a", 1, 5, 1)

    @property
    def heard(self):
        return self.heard_of.topics

    def send(self, message):
        assert not self.closed, "sent behind the close"
        self.log.append(json.loads(message))

    def close(self, code, reason):
        self.log.append(code)

    def flush(self):
        return self.position

    def subscribe(self, joined, left):
        assert not left.without(self.heard_of)
        assert not joined.without(NOTHING) or joined.without(self.heard_of) == joined
        self.heard_of = self.heard_of.without(left).together(joined)

    def resume(self, past):
        self.log.append(past)

    def abandon(self):
        self.log.append("abandoned")

    def forget(self, interest):
        assert interest == self.heard_of
        self.heard_of = NOTHING

    def ask(self, identity, topics):
        self.log.append(("ask", identity.user, topics))

    @property
    def closed(self):
        return any(isinstance(entry, int) for entry in self.log)

    def new(self):
        log, self.log = self.log, []
        return log


def session(*, identity=None, ask=False, rules=None, csrf=False, open_=True):
    wire = Wire()
    made = Session(wire, TowerDialect(), rules or AccessRules(ask=ask))
    if open_:
        made.authenticated(identity or Identity(7, "ada"), csrf=csrf)
        assert wire.new() == [{"accept": True, "user": 7}]
    return made, wire


def say(made, value):
    made.received(value if isinstance(value, bytes) else json.dumps(value).encode())


def reply(current=(), left=(), joined=()):
    return {"groups_current": list(current), "groups_left": list(left), "groups_joined": list(joined)}


def test_a_groups_message_replaces_the_set():
    made, wire = session()
    say(made, {"groups": {"jobs": ["status_changed", "summary"]}})
    both = ["jobs-status_changed", "jobs-summary"]
    assert wire.new() == [reply(both, [], both)]
    say(made, {"groups": {"jobs": ["summary"], "schedules": ["changed"]}})
    assert wire.new() == [reply(["jobs-summary", "schedules-changed"], ["jobs-status_changed"], ["schedules-changed"])]
    assert wire.heard == {SUMMARY, Topic("schedules", "changed")}


def test_an_unchanged_set_and_an_empty_one_are_acknowledged():
    made, wire = session()
    say(made, {"groups": {"jobs": ["summary"]}})
    say(made, {"groups": {"jobs": ["summary"]}})
    say(made, {"groups": {}})
    say(made, {"groups": {}})
    assert wire.new()[1:] == [reply(["jobs-summary"]), reply(left=["jobs-summary"]), reply()]
    assert wire.heard == set()


def test_an_id_and_its_text_are_one_topic():
    made, wire = session(identity=Identity(7, grants=Grants(("job_events/42",))))
    say(made, {"groups": {"job_events": [42, "42", 42]}})
    assert wire.new() == [reply(["job_events-42"], [], ["job_events-42"])]


def test_refused_names_are_told_one_by_one_before_the_reply_and_the_rest_counts():
    made, wire = session()
    say(made, {"groups": {"job_events": [42, 43], "jobs": ["summary"], "a b": ["x"], "_towerbus": ["canary"]}})
    *errors, last = wire.new()
    assert sorted(error["error"] for error in errors) == [
        "access denied to channel _towerbus for resource id canary",
        "access denied to channel a b for resource id x",
        "access denied to channel job_events for resource id 42",
        "access denied to channel job_events for resource id 43",
    ]
    assert last == reply(["jobs-summary"], [], ["jobs-summary"])
    assert wire.heard == {SUMMARY}


def test_a_refused_id_that_was_seen_before_is_left():
    made, wire = session()
    say(made, {"groups": {"jobs": ["summary"]}})
    say(made, {"groups": {"job_events": [42]}})
    assert wire.new()[-1] == reply([], ["jobs-summary"], [])


@pytest.mark.parametrize("value", ["status_changed", None, 42, {"status_changed": True}])
def test_a_value_that_is_no_list_changes_nothing(value):
    made, wire = session()
    say(made, {"groups": {"jobs": ["summary"]}})
    wire.new()
    say(made, {"groups": {"schedules": ["changed"], "jobs": value}})
    assert wire.new() == [{"error": "access denied to channel"}]
    assert wire.heard == {SUMMARY}


MALFORMED = {
    b"": "JSON",
    b"{": "JSON",
    b"hello": "JSON",
    b"\xff": "JSON",
    b"[]": "object",
    b"1": "object",
    b"null": "object",
    b'"groups"': "object",
    b"{}": "groups",
    b'{"group": {}}': "groups",
    b'{"groups": []}': "an array",
    b'{"groups": null}': "null",
    b'{"groups": "jobs"}': "a string",
    b'{"groups": 1}': "a number",
    b'{"groups": true}': "true or false",
    b'{"groups": {"jobs": [null]}}': "null",
    b'{"groups": {"jobs": [1.5]}}': "a number",
    b'{"groups": {"jobs": [true]}}': "true or false",
    b'{"groups": {"jobs": [["x"]]}}': "an array",
    b'{"groups": {"jobs": [{"x": 1}]}}': "an object",
    b'{"groups": {"jobs": ["x"]}} trailing': "JSON",
    b'{"groups": {"jobs": [NaN]}}': "JSON",
    b'{"groups": ' + b"[" * 50_000: "JSON",
    json.dumps({"groups": {"jobs": list(range(1001))}}).encode(): "1000",
    None: "binary",
}


@pytest.mark.parametrize("frame", MALFORMED, ids=lambda frame: repr(frame)[:40])
def test_malformed_frames_are_answered_and_change_nothing(frame):
    made, wire = session()
    say(made, {"groups": {"jobs": ["summary"]}})
    wire.new()
    made.received(frame)
    (answer,) = wire.new()
    assert MALFORMED[frame] in answer["error"]
    assert wire.heard == {SUMMARY}
    assert made.state is State.OPEN


def test_a_thousand_topics_are_not_too_many():
    made, wire = session(identity=Identity(7, grants=Grants(("*",))))
    say(made, {"groups": {"jobs": list(range(1000))}})
    assert len(wire.new()[-1]["groups_current"]) == 1000


def test_repeated_abuse_is_ended_and_a_good_message_forgives():
    made, wire = session()
    for _ in range(3):
        for _ in range(MAX_STRIKES - 1):
            made.received(b"{")
        say(made, {"groups": {}})
    assert not wire.closed
    wire.new()
    for _ in range(MAX_STRIKES + 5):
        made.received(b"{")
    assert wire.new()[-1] == 1008
    assert made.state is State.CLOSED


@pytest.mark.parametrize("echo", [{}, {"xrftoken": None}, {"xrftoken": ""}, {"xrftoken": "other"}, {"xrftoken": 5}])
def test_a_session_login_must_echo_the_cookie(echo):
    made, wire = session(csrf="tok456")
    say(made, {"groups": {"jobs": ["summary"]}, **echo})
    assert wire.new() == [{"error": "access denied to channel"}]
    say(made, {"groups": {"jobs": ["summary"]}, "xrftoken": "tok456"})
    assert wire.new() == [reply(["jobs-summary"], [], ["jobs-summary"])]


@pytest.mark.parametrize("cookie", [None, ""])
def test_without_the_cookie_every_message_is_refused(cookie):
    made, wire = session(csrf=cookie)
    say(made, {"groups": {}, "xrftoken": ""})
    assert wire.new() == [{"error": "access denied to channel"}]


def test_a_token_login_need_not_echo():
    made, wire = session()
    say(made, {"groups": {"jobs": ["summary"]}, "xrftoken": None})
    assert wire.new() == [reply(["jobs-summary"], [], ["jobs-summary"])]


def test_frames_before_authentication_wait_for_it():
    made, wire = session(open_=False)
    say(made, {"groups": {"jobs": ["summary"]}})
    say(made, {"groups": {}})
    assert wire.new() == []
    made.authenticated(Identity(7))
    assert wire.new() == [
        {"accept": True, "user": 7},
        reply(["jobs-summary"], [], ["jobs-summary"]),
        reply([], ["jobs-summary"]),
    ]


def test_what_may_wait_is_bounded():
    made, wire = session(open_=False)
    for _ in range(MAX_WAITING + 1):
        made.received(b"{}")
    assert wire.new() == [1008]
    made, wire = session(open_=False)
    for _ in range(3):
        made.received(b"x" * 60_000)
    assert wire.new() == [1008]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("refused", [{"close": True}, 1000]),
        ("expired", [{"close": True}, 1000]),
        ("unavailable", [1013]),
        ("slow", [1013]),
    ],
)
def test_how_sessions_end(end, expected):
    made, wire = session(open_=end not in {"refused", "unavailable"})
    given = ["why"] if end == "unavailable" else []
    getattr(made, end)(*given)
    assert wire.new() == expected
    made.received(b"{}")
    made.authenticated(Identity(7))
    getattr(made, end)(*given)
    assert wire.new() == []


def test_an_ended_session_hears_nothing():
    made, wire = session()
    say(made, {"groups": {"jobs": ["summary"]}})
    made.expired()
    assert wire.heard == set()


def test_the_application_is_asked_and_later_messages_wait():
    made, wire = session(ask=True)
    say(made, {"groups": {"job_events": [1, 2], "jobs": ["summary"]}})
    say(made, {"groups": {}})
    one, two = Topic("job_events", "1"), Topic("job_events", "2")
    assert wire.new() == [("ask", 7, frozenset({one, two}))]
    assert wire.heard == set()
    made.answered(frozenset({two}))
    both = ["job_events-2", "jobs-summary"]
    assert wire.new() == [
        {"error": "access denied to channel job_events for resource id 1"},
        reply(both, [], both),
        reply([], both),
    ]


def test_rules_that_change_while_the_application_is_asked_have_the_last_word():
    """Whoever may not see a topic by now does not, though the application has said yes to it."""
    rules = AccessRules([Rule(groups=("*",), who=Who.ASK)], ask=True)
    made, wire = session(rules=rules)
    say(made, {"groups": {"closed": ["x"], "asked": ["x", "y"], "open": ["x"]}})
    wire.new()
    rules.become(
        AccessRules(
            [
                Rule(groups=("closed",), who=Who.NOBODY),
                Rule(groups=("open",), who=Who.EVERYONE),
                Rule(groups=("*",), who=Who.ASK),
            ],
            ask=True,
        )
    )
    made.reconsider()
    made.answered(frozenset({Topic("closed", "x"), Topic("asked", "x")}))
    seen = ["asked-x", "open-x"]
    assert wire.new() == [
        {"error": "access denied to channel asked for resource id y"},
        {"error": "access denied to channel closed for resource id x"},
        reply(seen, [], seen),
    ]
    assert wire.heard == {Topic("asked", "x"), Topic("open", "x")}


def test_an_answer_for_a_session_that_is_gone_is_nothing():
    made, wire = session(ask=True)
    say(made, {"groups": {"job_events": [1]}})
    made.lost()
    wire.new()
    made.answered(frozenset({Topic("job_events", "1")}))
    assert wire.new() == []
    assert wire.heard == set()


@given(st.one_of(st.none(), st.binary(), st.text().map(str.encode), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
).map(lambda value: json.dumps({"groups": value}).encode())))  # fmt: skip
def test_any_frame_is_answered_and_never_an_exception(frame):
    made, wire = session()
    made.received(frame)
    assert wire.new()
    assert made.state is State.OPEN
