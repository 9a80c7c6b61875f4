"""What becomes an event, which URLs are whose, and what errors say of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus import posting
from towerbus.errors import ConfigError, PeerError
from towerbus.posting import Attempts


@pytest.mark.parametrize(
    ("url", "expected"),
    [("amqp://h", True), ("AMQPS://h", True), ("http://h", False), ("amqp", True), ("amqpx://h", False), ("", False)],
)
def test_which_urls_are_a_brokers(url, expected):
    assert posting.is_amqp(url) is expected


@given(
    st.sampled_from(["http", "https", "amqpx", "ws", ""]),
    st.text(st.sampled_from("/#?@:%&=[]. a1"), max_size=8),
    st.sampled_from(["h", "h:1", "h:x", "[::1"]),
)
def test_no_password_is_ever_in_an_error(scheme, inside, host):
    url = f"{scheme}://user:hunter2{inside}hunter2@{host}/"
    try:
        posting.emit_url(url)
    except ConfigError as error:
        assert "hunter2" not in str(error)


def test_a_password_is_told_what_to_escape_and_goes_nowhere():
    for url in ("http://user:pass#word@host/", "http://user:12#word@host/", "http://user:a/b@host:x"):
        with pytest.raises(ConfigError, match="in a password / must be written %2F, . %3F, # %23"):
            posting.emit_url(url)
    assert posting.emit_url("http://user:hunter2@h:1/x") == "http://h:1/x/emit"


def test_what_a_server_said_is_not_hidden_by_a_last_try_without_an_answer():
    attempts = Attempts(("a",), 2.0)
    attempts.failed("no answer in time", sure=False)
    assert attempts.given_up().reason == "not confirmed within 2 s: no answer in time"
    assert not attempts.confirmed(503, b'{"error": "the intake is full", "taken": false}')
    assert attempts.given_up().reason == "not confirmed within 2 s: the intake is full"
    attempts.failed("no answer in time", sure=False)
    given_up = attempts.given_up()
    assert given_up.reason == "not confirmed within 2 s: the intake is full (then: no answer in time)"
    assert not given_up.sure


def test_an_event_has_what_was_given_and_a_time():
    (made,) = posting.events([{"group": "jobs", "type": 42, "payload": b'{"n":  1}', "id": "mine"}])
    assert (made.topic, made.payload, made.id) == (("jobs", "42"), b'{"n":  1}', "mine")
    assert made.time > 1_700_000_000
    assert posting.body([made]) == b'[{"group":"jobs","type":"42","id":"mine","payload":{"n":  1}}]'


def test_a_bad_one_is_named_by_its_place_and_none_is_made():
    good = {"group": "jobs", "type": "x", "payload": {"n": 1}}
    with pytest.raises(PeerError, match="item 1: no payload"):
        posting.events([good, {"group": "jobs", "type": "x"}])
    with pytest.raises(PeerError, match="^payload of 7 bytes is over the limit of 6"):
        posting.events([good], limit=6)
    with pytest.raises(PeerError, match="empty object"):
        posting.events([good | {"payload": {}}])
    assert posting.events([]) == []
