"""The dialect `towerbus.v1`: any frame is a request or the documented error, and every message is what the page says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.access import Identity
from towerbus.dialects import v1
from towerbus.dialects.messages import (
    AccessDeniedError,
    Code,
    Denied,
    Farewell,
    MalformedError,
    MessageError,
    Reply,
    Subscribe,
)
from towerbus.dialects.v1 import V1Dialect
from towerbus.event import event
from towerbus.interest import NOTHING, Interest, Sight
from towerbus.log.record import Record
from towerbus.positions import Lost, Position
from towerbus.topics import Topic

DIALECT = V1Dialect()
PLACE = Position("0a", 1, 17, 3)
JOBS = Topic("jobs", "status_changed")


def read(value):
    return DIALECT.read(value if isinstance(value, bytes) else json.dumps(value).encode())


def test_everything_that_a_message_may_say():
    assert read(
        {
            "groups": {"jobs": ["status_changed", "*"], "job_events": [42, "42"], "a b": ["*"], "x": ["a b"]},
            "since": "0a-1-17-3",
            "id": "m1",
            "xrftoken": "t",
            "more": 1,
        }
    ) == Subscribe(
        frozenset({JOBS, Topic("job_events", "42")}),
        frozenset({"jobs"}),
        (Denied("a b", "*"), Denied("x", "a b")),
        "t",
        PLACE,
        None,
        "m1",
    )


def test_null_is_as_good_as_absent():
    empty = Subscribe(frozenset())
    assert read({"groups": {}, "since": None, "last": None, "id": None, "xrftoken": None}) == empty
    assert read({"groups": {}}) == empty


@pytest.mark.parametrize("number", [1, 100])
def test_last_is_from_1_to_100(number):
    assert read({"groups": {"jobs": ["x"]}, "last": number}).last == number


BAD = {
    '"groups" is missing': ({}, "malformed"),
    "not valid JSON": (b"{", "malformed"),
    "must be a JSON object": (b"[]", "malformed"),
    "not an array": ({"groups": []}, "malformed"),
    "types of group 'jobs' must be an array, not a string": ({"groups": {"jobs": "*"}}, "malformed"),
    "must be strings or integers, not null": ({"groups": {"jobs": [None]}}, "malformed"),
    "more than 1000 topics": ({"groups": {"jobs": list(range(1001))}}, "too_many"),
    "is not a position": ({"groups": {}, "since": "17"}, "bad_position"),
    "'' is not a position": ({"groups": {}, "since": ""}, "bad_position"),
    '"since" must be a position, which is a string, not a number': ({"groups": {}, "since": 17}, "malformed"),
    '"last" must be an integer from 1 to 100, not 0': ({"groups": {}, "last": 0}, "malformed"),
    '"last" must be an integer from 1 to 100, not 101': ({"groups": {}, "last": 101}, "malformed"),
    '"last" must be an integer from 1 to 100, not 1.5': ({"groups": {}, "last": 1.5}, "malformed"),
    '"last" must be an integer from 1 to 100, not a string': ({"groups": {}, "last": "5"}, "malformed"),
    '"last" must be an integer from 1 to 100, not true or false': ({"groups": {}, "last": True}, "malformed"),
    "exclude each other": ({"groups": {}, "last": 1, "since": "0a-1-1-1"}, "malformed"),
    "more than 5000 events: ask for fewer": ({"groups": {"jobs": list(range(51))}, "last": 100}, "too_many"),
}


@pytest.mark.parametrize("words", BAD)
def test_what_is_wrong_is_named_in_words_and_in_a_word(words):
    given, code = BAD[words]
    with pytest.raises(MalformedError) as caught:
        read({**given, "id": 7} if isinstance(given, dict) else given)
    answer = json.loads(DIALECT.error(caught.value))
    assert words in answer.pop("error")
    assert answer == {"code": code} | ({"id": 7} if isinstance(given, dict) else {})


@pytest.mark.parametrize("bad", ["x" * 129, 1.5, True, [], {}, 2**53])
def test_an_id_that_is_none_is_refused_and_not_echoed(bad):
    with pytest.raises(MalformedError, match='"id" must be') as caught:
        read({"groups": {}, "id": bad})
    assert json.loads(DIALECT.error(caught.value)).keys() == {"error", "code"}


def test_a_refused_echo_names_the_message():
    error = AccessDeniedError("access denied to channel", "m")
    assert json.loads(DIALECT.error(error)) == {
        "error": "access denied to channel",
        "code": "access_denied",
        "id": "m",
    }


def reply(wish=None, **given):
    return Reply(
        **{
            "wish": wish or Subscribe(frozenset()), "current": NOTHING, "left": NOTHING, "joined": NOTHING, "denied": (), "position": PLACE,
            **given,
        }
    )  # fmt: skip


def test_the_reply():
    current = Interest(frozenset({JOBS}), frozenset({Sight("job_events", frozenset("*"))}))
    made = reply(current=current, joined=current.without(Interest(frozenset({JOBS}))), denied=[Denied("a b", "*")])
    (answer,) = DIALECT.answers(made)
    assert json.loads(answer) == {
        "groups_current": ["job_events-*", "jobs-status_changed"],
        "groups_left": [],
        "groups_joined": ["job_events-*"],
        "groups_denied": ["a b-*"],
        "position": "0a-1-17-3",
    }


def test_the_reply_to_since_says_what_became_of_it():
    wish = Subscribe(frozenset(), since=PLACE, id=0)
    (answer,) = DIALECT.answers(reply(wish))
    assert json.loads(answer) | {"recovered": True, "id": 0} == json.loads(answer)
    assert "lost" not in json.loads(answer)
    (answer,) = DIALECT.answers(reply(wish, lost=Lost(PLACE, PLACE._replace(offset=20), "why")))
    assert json.loads(answer)["recovered"] is False
    assert json.loads(answer)["lost"] == {"from": "0a-1-17-3", "to": "0a-1-20-3", "reason": "why"}


@pytest.mark.parametrize(
    ("payload", "id_"), [(b'{"n": 1}', 'say"hi"\\'), ('{ "ä" :\t[1.50, {"x":"\\u00e9"}]\n}'.encode(), "1")]
)
def test_an_event_holds_the_payload_byte_for_byte(payload, id_):
    record = Record("0a", 1, 17, (event("x", "y", b'{"a":1}'), event("job_events", 42, payload, id=id_, at=1.5)))
    written = v1.event(record, 1)
    assert written.endswith(b',"data":' + payload + b"}")
    assert json.loads(written) == {
        "group": "job_events",
        "type": "42",
        "position": "0a-1-17-2",
        "id": id_,
        "time": 1.5,
        "data": json.loads(payload),
    }


def test_the_notices():
    lost = Lost(PLACE, PLACE._replace(place=9), "why")
    assert json.loads(DIALECT.missed(lost)) == {"gap": {"from": "0a-1-17-3", "to": "0a-1-17-9", "reason": "why"}}
    assert json.loads(DIALECT.stale(5.5)) == {"stale": {"since": 5.5}}
    assert json.loads(DIALECT.fresh()) == {"stale": False}
    assert json.loads(DIALECT.position(PLACE)) == {"position": "0a-1-17-3"}
    assert json.loads(DIALECT.accepted(Identity("ada"))) == {"accept": True, "user": "ada"}


def test_the_farewells():
    def said(farewell):
        message = None if farewell.message is None else json.loads(farewell.message)
        return message, farewell.code

    message, code = said(DIALECT.not_authenticated())
    assert (message["code"], code) == ("not_authenticated", 4401)
    message, code = said(DIALECT.try_later("the log can't be read now"))
    assert (message, code) == (
        {"error": "the log can't be read now: come back later", "code": "unavailable"},
        1013,
    )
    assert said(DIALECT.restarting(2.345)) == ({"reconnect": {"after": 2.3}}, 1012)
    assert said(DIALECT.slow()) == (None, 4408)
    assert said(DIALECT.abuse("x")) == (None, 1008)
    assert "resume with your last position" in DIALECT.slow().reason
    for farewell in (DIALECT.slow(), DIALECT.not_authenticated(), DIALECT.restarting(0)):
        assert isinstance(farewell, Farewell)
        assert len(farewell.reason.encode()) <= 123


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
messages = st.fixed_dictionaries(
    {"groups": st.dictionaries(st.sampled_from(["jobs", "a b", "", "job_events"]), st.lists(st.one_of(st.just("*"), st.text(), st.integers()))) | values},
    optional={"since": st.just("0a-1-1-1") | values, "last": st.integers(-1, 102) | values, "id": st.text() | st.integers() | values, "xrftoken": values},
)  # fmt: skip


@given(
    st.one_of(
        st.binary(),
        st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
        values.map(lambda value: json.dumps(value).encode()),
        messages.map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_frame_is_a_request_or_the_documented_error(frame):
    try:
        wish = DIALECT.read(frame)
    except MessageError as error:
        answer = json.loads(DIALECT.error(error))
        assert answer["code"] in {"malformed", "too_many", "bad_position"}
        assert answer["error"]
        assert answer.keys() <= {"error", "code", "id"}
    else:
        assert wish.since is None or wish.last is None
        (answer,) = DIALECT.answers(reply(wish, denied=wish.impossible))
        assert json.loads(answer).get("id") == wish.id


def test_the_set_of_codes_is_closed():
    assert {code.value for code in Code} == {
        "malformed", "too_many", "bad_position", "access_denied", "not_authenticated", "unavailable",
    }  # fmt: skip
