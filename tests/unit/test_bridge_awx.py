"""What AWX's relay says, and what is said to it."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from towerbus.bridge import awx
from towerbus.bridge.admission import Admission
from towerbus.bridge.awx import Verdict, judge, relayed
from towerbus.bridge.followed import Followed
from towerbus.bridge.message import Message
from towerbus.bridge.waiting import EACH, Waiting

NOW = 1_700_000_000.0


def test_a_header_is_what_awx_makes():
    """Written out from AWX's own construction, so that both sides can't be wrong together."""
    said = b'{"secret": "s\\u00e4cret", "nonce": "1700000000"}'
    mac = hmac.new("säcret".encode(), said, hashlib.sha256).hexdigest()
    assert awx.header("säcret", NOW + 0.9) == f"HMAC-SHA256 1700000000:{mac}"
    assert judge(f"HMAC-SHA256 1700000000:{mac}", "säcret", NOW) is Verdict.GOOD


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (None, Verdict.MISSING),
        ("", Verdict.MISSING),
        ("nonsense", Verdict.MALFORMED),
        ("HMAC-SHA256 1700000000", Verdict.MALFORMED),
        ("HMAC-SHA256 soon:abc", Verdict.MALFORMED),
        ("HMAC-SHA256 -1:abc", Verdict.MALFORMED),
        ("HMAC-SHA256 \u0661:abc", Verdict.MALFORMED),
        ("HMAC-MD5 1700000000:abc", Verdict.MALFORMED),
        ("HMAC-SHA256 1700000000:", Verdict.WRONG),
        ("HMAC-SHA256 1700000000:äbc", Verdict.WRONG),
        (awx.header("other", NOW), Verdict.WRONG),
        (awx.header("other", NOW - 1000), Verdict.WRONG),
        (awx.header("", NOW), Verdict.EMPTY),
        (awx.header("secret", NOW - 300), Verdict.GOOD),
        (awx.header("secret", NOW - 301), Verdict.OLD),
        (awx.header("secret", NOW + 300), Verdict.GOOD),
        (awx.header("secret", NOW + 301), Verdict.EARLY),
        (awx.header("secret", NOW) + "0", Verdict.WRONG),
        (awx.header("secret", NOW).replace("1700000000", "1700000001"), Verdict.WRONG),
    ],
)
def test_headers_are_judged(given, verdict):
    assert judge(given, "secret", NOW) is verdict


@given(st.text())
def test_any_header_gets_a_verdict(text):
    assert judge(text, "secret", NOW) is not Verdict.GOOD


def frame(group, payload):
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return json.dumps({"group": group, "message": {"type": "internal.message", "text": text}}).encode()


def test_a_message_is_what_was_emitted_byte_for_byte():
    found = relayed(frame("job_events-42", '{"counter":  1}'))
    assert (found.group, found.message.group, found.message.type) == ("job_events-42", "job_events", "42")
    assert found.message.body == b'{"counter":  1}'
    assert found.message.id
    assert found.message.id != relayed(frame("job_events-42", '{"counter":  1}')).message.id
    assert found.job == ""


@pytest.mark.parametrize(
    ("type_", "group"),
    [
        ("job", "job_events-7"),
        ("ad_hoc_command", "ad_hoc_command_events-7"),
        ("project_update", "project_update_events-7"),
        ("inventory_update", "inventory_update_events-7"),
        ("system_job", "system_job_events-7"),
        ("workflow_job", "workflow_events-7"),
        ("workflow_approval", ""),
    ],
)
def test_the_status_of_a_job_names_the_group_of_its_events(type_, group):
    status = {"unified_job_id": 7, "status": "running", "type": type_, "group_name": "jobs"}
    found = relayed(frame("jobs-status_changed", status))
    assert (found.job, found.finished) == (group, False)
    for end in ("successful", "failed", "error", "canceled"):
        assert relayed(frame("jobs-status_changed", status | {"status": end})).finished is bool(group)


@pytest.mark.parametrize("payload", ["[]", "7", "null", "{", {"type": ["job"]}, {"type": "job", "unified_job_id": "x"}])
def test_a_status_that_is_none_follows_nothing(payload):
    assert relayed(frame("jobs-status_changed", payload)).job == ""


def test_a_group_that_is_no_topic_is_named_so_that_it_can_be_passed_over():
    assert relayed(frame("metrics", "{}")).group == "metrics"


@given(
    st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["group", "message", "text", "x"]), inner),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_whatever_comes_becomes_a_message(text):
    found = relayed(text)
    assert found.message.id
    assert found.group or found.message.body == text


def test_jobs_are_followed_until_a_while_after_their_end():
    jobs = Followed(linger=10)
    assert jobs.heard("a", False, 0) == (["a"], [])
    assert jobs.heard("a", False, 1) == ([], [])
    assert jobs.heard("a", True, 2) == ([], [])
    assert jobs.heard("b", False, 11) == (["b"], [])
    assert "a" in jobs
    assert jobs.heard("b", False, 12) == ([], ["a"])
    assert list(jobs) == ["b"]


def test_a_job_that_runs_again_is_followed_on():
    jobs = Followed(linger=10)
    jobs.heard("a", True, 0)
    jobs.heard("a", False, 5)
    assert jobs.heard("b", False, 100) == (["b"], [])
    assert list(jobs) == ["a", "b"]


def test_a_job_that_is_first_heard_of_at_its_end_has_its_last_events_followed():
    assert Followed().heard("a", True, 0) == (["a"], [])


def test_the_number_of_jobs_is_bounded():
    jobs = Followed(limit=3)
    for number in range(3):
        jobs.heard(f"j{number}", False, 0)
    assert jobs.heard("j3", False, 0) == (["j3"], ["j0"])
    assert len(jobs) == 3


def test_a_status_without_a_type_follows_nothing():
    """docs/awx.md says so; AWX's own always has one."""
    assert relayed(frame("jobs-status_changed", {"unified_job_id": 7, "status": "running"})).job == ""


def test_what_waits_is_in_order_and_bounded():
    waiting = Waiting(3 * EACH + 4)
    messages = [Message(body=b"xx", id=str(number), place="") for number in range(4)]
    assert [waiting.add(message) for message in messages[:3]] == [True, True, False]
    assert (len(waiting), waiting.size, waiting.dropped, waiting.full) == (2, 2 * EACH + 4, 1, True)
    assert waiting.first(1) == messages[:1]
    assert waiting.first(9) == messages[:2]
    waiting.let_go(1)
    assert waiting.add(messages[3])
    assert waiting.first(9) == [messages[1], messages[3]]
    waiting.let_go(2)
    assert (len(waiting), waiting.size, waiting.dropped) == (0, 0, 1)


def test_who_is_refused_again_and_again_is_counted_each_time_and_told_of_once_a_second():
    clock = Clock()
    admission = Admission(clock, "secret", "awx", lambda: NOW)
    with capturedLogs() as events:
        for _ in range(3):
            assert "another secret" in admission.refusal(awx.header("another", NOW), "peer")
        assert "empty secret" in admission.refusal(awx.header("", NOW), "peer")
        clock.advance(1)
        assert admission.refusal(awx.header("another", NOW), "peer")
        assert admission.refusal(awx.header("secret", NOW), "peer") == ""
    assert admission.refused == 5
    told = [(event["log_format"].partition(":")[0], event["refused"]) for event in events]
    assert told == [("relay_secret_wrong", 1), ("relay_secret_empty", 1), ("relay_secret_wrong", 4)]
