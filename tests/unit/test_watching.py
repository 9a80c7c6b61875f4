"""The client's side of both dialects."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.dialects.watching import Listener, Watch

A, B = "0a-1-17-1", "0a-1-20-3"


class Ear:
    def __init__(self, groups=None, since=None, subprotocol="towerbus.v1"):
        self.events, self.notices = [], []
        listener = Listener(lambda whole, payload: self.events.append((whole, payload)), self.notices.append)
        self.watch = Watch(groups or {"jobs": ["*"]}, listener, since)
        self.first = json.loads(self.watch.opening(subprotocol))

    def hear(self, *messages):
        for message in messages:
            self.watch.heard(message if isinstance(message, bytes) else json.dumps(message).encode())


def reply(position=A, current=("jobs-*",), **more):
    return {
        "groups_current": list(current), "groups_left": [], "groups_joined": list(current), "groups_denied": [], "position": position,
        **more,
    }  # fmt: skip


def test_it_begins_without_a_position_or_with_the_one_given():
    assert Ear().first == {"groups": {"jobs": ["*"]}, "since": None}
    assert Ear(since=A).first == {"groups": {"jobs": ["*"]}, "since": A}


def test_an_event_is_told_whole_and_as_its_payload_byte_for_byte():
    ear = Ear()
    whole = (
        b'{"group":"jobs","type":"x","position":"%s","id":"1","time":1.5,"data":{"n":  1, "s":"\xc3\xa4"}}' % B.encode()
    )
    ear.hear({"accept": True, "user": 7}, reply(), whole)
    assert ear.events == [(whole, b'{"n":  1, "s":"\xc3\xa4"}')]
    assert ear.notices == ["watching jobs-*"]
    assert ear.watch.welcome
    assert json.loads(ear.watch.opening("towerbus.v1"))["since"] == B


@pytest.mark.parametrize("message", [reply(B), {"position": B}])
def test_replies_and_notices_move_the_position(message):
    ear = Ear(since=A)
    ear.hear(message)
    assert ear.watch.position == B


def test_what_is_lost_stale_and_refused_is_told():
    ear = Ear(since=A)
    lost = {"from": A, "to": B, "reason": "why"}
    ear.hear(
        reply(B, recovered=False, lost=lost, groups_denied=["x-*"]), {"gap": lost}, {"stale": {"since": 1767225600}}, {"stale": False},
        {"error": "come back later", "code": "unavailable"},
    )  # fmt: skip
    assert ear.notices == [
        "access denied to x-*",
        f"events were lost between {A} and {B}: why",
        "watching jobs-*",
        f"events were lost between {A} and {B}: why",
        "no events may have come through since 2026-01-01 00:00:00 UTC",
        "events come through again",
        "come back later",
    ]
    ear.watch.opening("towerbus.v1")
    ear.hear(reply(B, recovered=True))
    assert ear.notices[-1] == "watching jobs-*, from where it was"


def test_who_is_not_let_in_and_who_is_asked_to_come_back():
    ear = Ear()
    ear.hear({"error": "who are you?", "code": "not_authenticated"})
    assert ear.watch.refused
    ear.watch.opening("towerbus.v1")
    assert not ear.watch.refused
    ear.hear({"reconnect": {"after": 2.5}})
    assert ear.watch.after == 2.5


@pytest.mark.parametrize("subprotocol", ["tower", None])
def test_a_server_that_speaks_only_tower_still_works(subprotocol):
    ear = Ear({"jobs": ["*", "x"], "job_events": ["42"], "metrics": ["*"]}, since=A, subprotocol=subprotocol)
    assert ear.first == {"groups": {"jobs": ["x", "status_changed", "summary"], "job_events": ["42"]}}
    assert "what was missed is not sent again" in ear.notices[0]
    assert "metrics needs a type" in ear.notices[1]
    ear.hear(
        {"accept": True, "user": 7}, {"error": "access denied"}, {"groups_current": [], "groups_left": [], "groups_joined": []}, b'{"n":  1}',
        b'{"position": "x"}',
    )  # fmt: skip
    assert ear.events == [(b'{"n":  1}', b'{"n":  1}'), (b'{"position": "x"}', b'{"position": "x"}')]
    assert ear.notices[2:] == ["access denied", "watching nothing"]
    ear.hear({"close": True})
    assert ear.watch.refused


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
keys = st.sampled_from(
    [
        "data",
        "position",
        "groups_current",
        "groups_denied",
        "error",
        "code",
        "gap",
        "lost",
        "stale",
        "since",
        "reconnect",
        "after",
        "close",
    ]
)


@given(
    st.binary()
    | st.dictionaries(keys, values | st.dictionaries(keys, values)).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["towerbus.v1", "tower"]),
)
def test_whatever_a_server_says_nothing_breaks(message, subprotocol):
    ear = Ear(subprotocol=subprotocol)
    ear.hear(message)
    ear.watch.opening(subprotocol)
