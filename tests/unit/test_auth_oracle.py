"""The application, asked about single topics."""

import json

import pytest
import pytest_twisted
from support.application import SILENCE, application
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from towerbus.access import Identity
from towerbus.auth.interface import IAccessOracle
from towerbus.auth.oracle import AccessOracle
from towerbus.errors import ConfigError
from towerbus.topics import topic

ADA = Identity(7, "ada")


def topics(*names):
    return frozenset(topic(*name.split("/")) for name in names)


def told(app):
    return [(asked.method, json.loads(asked.body)) for asked in app.asked]


@pytest_twisted.ensureDeferred
async def test_each_group_is_asked_about_once_and_the_answers_come_together():
    def answer(asked):
        return {"allowed": ["42"] if json.loads(asked.body)["group"] == "job_events" else [7]}

    async with application(reactor, answer=answer) as app:
        oracle = AccessOracle(app.url, reactor)
        assert verifyObject(IAccessOracle, oracle)
        wanted = topics("job_events/43", "job_events/42", "ad_hoc_command_events/7")
        assert await oracle.allowed(ADA, wanted) == topics("job_events/42", "ad_hoc_command_events/7")
        assert sorted(told(app), key=str) == [
            ("POST", {"user": 7, "group": "ad_hoc_command_events", "types": ["7"]}),
            ("POST", {"user": 7, "group": "job_events", "types": ["42", "43"]}),
        ]
        assert app.asked[0].headers["content-type"] == "application/json"
        assert await oracle.allowed(ADA, frozenset()) == frozenset()
        await oracle.close()


@pytest_twisted.ensureDeferred
async def test_what_was_not_asked_is_not_allowed():
    async with application(reactor, answer={"allowed": ["42", "43"]}) as app:
        oracle = AccessOracle(app.url, reactor)
        assert await oracle.allowed(ADA, topics("job_events/42")) == topics("job_events/42")
        app.answer = {"allowed": []}
        assert await oracle.allowed(ADA, topics("job_events/43")) == frozenset()
        await oracle.close()


@pytest_twisted.ensureDeferred
async def test_answers_are_remembered_for_seconds_for_one_user_a_no_for_less():
    clock = Clock()
    async with application(reactor, answer={"allowed": ["42"]}) as app:
        oracle = AccessOracle(app.url, reactor, clock=clock)
        await oracle.allowed(ADA, topics("job_events/42", "job_events/43"))
        assert await oracle.allowed(ADA, topics("job_events/42", "job_events/43")) == topics("job_events/42")
        assert len(app.asked) == 1
        await oracle.allowed(Identity("7"), topics("job_events/42"))
        assert len(app.asked) == 2
        clock.advance(1)
        assert await oracle.allowed(ADA, topics("job_events/42", "job_events/43")) == topics("job_events/42")
        assert told(app)[2][1]["types"] == ["43"]
        clock.advance(4)
        app.answer = {"allowed": []}
        assert await oracle.allowed(ADA, topics("job_events/42")) == frozenset()
        await oracle.close()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, {"allowed": ["42"]}),
        (302, {"allowed": ["42"]}),
        (200, b""),
        (200, b"\xff"),
        (200, {}),
        (200, {"allowed": "42"}),
        (200, {"allowed": [None]}),
        (200, ["42"]),
        (200, ConnectionError()),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_answer_allows_nothing_is_told_of_and_is_not_remembered(status, answer):
    async with application(reactor, status=status, answer=answer) as app:
        oracle = AccessOracle(app.url, reactor)
        with capturedLogs() as logs:
            assert await oracle.allowed(ADA, topics("job_events/42")) == frozenset()
        (event,) = [event for event in logs if event["log_namespace"] == "towerbus.auth.oracle"]
        assert event["log_level"].name == "warn"
        assert event["log_format"].startswith("access_not_answered")
        app.status, app.answer = 200, {"allowed": ["42"]}
        assert await oracle.allowed(ADA, topics("job_events/42")) == topics("job_events/42")
        await oracle.close()


@pytest_twisted.ensureDeferred
async def test_silence_allows_nothing_but_what_is_known():
    clock = Clock()
    async with application(reactor, answer={"allowed": ["42"]}) as app:
        oracle = AccessOracle(app.url, reactor, clock=clock, deadline=2)
        await oracle.allowed(ADA, topics("job_events/42"))
        app.answer = SILENCE
        asking = oracle.allowed(ADA, topics("job_events/42", "job_events/43"))
        await app.asked_times(2)
        with capturedLogs() as logs:
            clock.advance(2)
            assert await asking == topics("job_events/42")
        assert "did not answer within 2 s" in logs[0]["reason"]
        await oracle.close()


@pytest_twisted.ensureDeferred
async def test_one_request_for_all_who_ask_the_same_at_once():
    async with application(reactor, answer=SILENCE) as app:
        oracle = AccessOracle(app.url, reactor)
        asking = [oracle.allowed(ADA, topics("job_events/42")) for _ in range(20)]
        await app.asked_times(1)
        app.release({"allowed": ["42"]})
        assert await gatherResults(asking) == [topics("job_events/42")] * 20
        assert len(app.asked) == 1
        await oracle.close()


def test_a_wrong_url_is_named_with_its_option():
    with pytest.raises(ConfigError, match="--ask-url: got 'nonsense'"):
        AccessOracle("nonsense", reactor)
