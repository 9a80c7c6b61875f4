"""`POST /emit`: every answer, over real HTTP."""

import json

import pytest
import pytest_twisted
import treq
from hypothesis import given
from hypothesis import strategies as st
from support.posts import GOOD, Intake
from support.wires import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import capturedLogs, formatEvent, globalLogPublisher
from twisted.web.client import HTTPConnectionPool
from zope.interface import implementer
from zope.interface.verify import verifyObject

from towerbus.access import Grants, Identity
from towerbus.auth.interface import IAuthenticator, NotNow, Refused
from towerbus.errors import BusUnavailable, NotConfirmed, PeerError
from towerbus.intake import http
from towerbus.intake.interface import IIntake
from towerbus.intake.line import FULL


@implementer(IAuthenticator)
class Producers:
    """Knows some tokens."""

    def authenticate(self, credential):
        match credential.secret:
            case "all":
                return Identity(1, grants=Grants(emit=("*",)))
            case "jobs":
                return Identity(2, grants=Grants(emit=("jobs/*",)))
            case "sees":
                return Identity(3, grants=Grants(subscribe=("*",)))
            case "old":
                raise Refused("the token has expired")
            case "away":
                return fail(NotNow("the application does not answer"))
        return None


class Site:
    """The HTTP listener on a real port."""

    async def start(self, **options):
        self.intake = Intake()
        assert verifyObject(IIntake, self.intake)
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        site = http.site(self.intake, Producers(), reactor, **options)
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        self.url = f"http://127.0.0.1:{self.port.getHost().port}/emit"
        return self

    async def post(self, body, token="all", method="POST", url=None, headers=None):
        headers = ({"Authorization": f"Bearer {token}"} if token else {}) | (headers or {})
        answer = await treq.request(method, url or self.url, data=body, headers=headers, pool=self.pool)
        text = await answer.content()
        return answer.code, json.loads(text) if text else None, answer.headers

    async def stop(self):
        await self.port.stopListening()
        await self.pool.closeCachedConnections()
        # After a refusal the server waits for the client to end the connection.
        await until(lambda: not any(getattr(reader, "server", None) is self.port for reader in reactor.getReaders()))


@pytest.mark.parametrize(
    ("body", "payloads"),
    [
        (GOOD, [b'{ "n" :1}']),
        (b'{"group":"jobs-status_changed","payload":{"n":1}}', [b'{"n":1}']),
        (b"[" + GOOD + b" , " + GOOD + b"]", [b'{ "n" :1}'] * 2),
        (GOOD + b"\n\n" + GOOD + b"\r\n", [b'{ "n" :1}'] * 2),
        (GOOD.replace(b",", b",\n"), [b'{ "n" :1}']),
        (b"[]", []),
    ],
)
@pytest_twisted.ensureDeferred
async def test_events_are_taken_byte_for_byte(body, payloads):
    site = await Site().start()
    code, answer, _ = await site.post(body)
    assert (code, answer) == (202, {"accepted": len(payloads)})
    assert [event.payload for event in site.intake.events] == payloads
    assert all(event.topic == ("jobs", "status_changed") for event in site.intake.events)
    await site.stop()


BAD = {
    b"": "empty",
    b"  \n ": "empty",
    b"hello": "not an event",
    b"{": "not an event",
    b"1": "not an event",
    b"[1]": "item 0",
    b"[": "array",
    b"[" + GOOD + b", {}]": "item 1",
    GOOD + b"\n{}\n": "line 2",
    GOOD + b"\n\nnonsense": "line 3",
    b'{"group":"jobs","type":"x"}': "payload",
    b'{"type":"x","payload":{"n":1}}': "group",
    b'{"group":"jobs","payload":{"n":1}}': "group-type",
    b'{"group":5,"type":"x","payload":{"n":1}}': "group",
    b'{"group":"jobs","type":[],"payload":{"n":1}}': "type",
    b'{"group":"jobs","type":"x","payload":{}}': "empty object",
    b'{"group":"jobs","type":"x","payload":[1]}': "JSON object",
    b'{"group":"jobs","type":"x","payload":null}': "JSON object",
    b'{"group":"jobs","type":"x","payload":"text"}': "JSON object",
    b'{"group":"a b","type":"x","payload":{"n":1}}': "group 'a b'",
    b'{"group":"jobs","type":"a b","payload":{"n":1}}': "type 'a b'",
    b'{"group":"_towerbus","type":"canary","payload":{"n":1}}': "internal",
    b'{"group":"jobs","type":"x","payload":{"n":1},"id":"a b"}': "id",
    b'{"group":"jobs","type":"x","payload":{"n":1},"id":5}': "id",
    b'{"group":"' + b"g" * 100 + b'","type":"x","payload":{"n":1}}': "99",
    b'{"group":"jobs","type":"x","payload":{"n":NaN}}': "event",
    b'{"group":"jobs","type":"x","payload":{"n":"\xff"}}': "",
    b"[" * 50_000: "array",
}


@pytest.mark.parametrize("body", BAD, ids=lambda body: repr(body)[:50])
@pytest_twisted.ensureDeferred
async def test_what_is_not_right_is_named_and_nothing_is_taken(body):
    site = await Site().start()
    code, answer, _ = await site.post(body)
    assert code == 400
    assert BAD[body] in answer["error"]
    assert site.intake.events == []
    await site.stop()


@given(
    st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.lists(st.sampled_from([GOOD, b"{}", b"\n", b"[", b"]", b","])).map(b"".join),
    )
)
def test_any_body_is_events_or_the_one_error(body):
    try:
        events = http.read(body)
    except PeerError as error:
        assert str(error)
    else:
        assert all(event.topic == ("jobs", "status_changed") for event in events)


@pytest.mark.parametrize(
    ("token", "code", "word"),
    [(None, 401, "no token"), ("unknown", 401, "not known"), ("old", 401, "expired"), ("away", 503, "later")],
)
@pytest_twisted.ensureDeferred
async def test_who_may_not_emit(token, code, word):
    site = await Site().start()
    got, answer, headers = await site.post(GOOD, token)
    assert got == code
    assert word in answer["error"]
    assert headers.hasHeader("Retry-After") == (code == 503)
    assert headers.hasHeader("WWW-Authenticate") == (code == 401)
    assert site.intake.events == []
    await site.stop()


@pytest.mark.parametrize("headers", [{"Authorization": b"Bearer \xff"}, {"Content-Type": b"\xff"}])
@pytest_twisted.ensureDeferred
async def test_headers_that_are_no_text_are_nothing_special(headers):
    site = await Site().start()
    given = {"authorization": b"Bearer all"} | {name.lower(): value for name, value in headers.items()}
    assert (await site.post(GOOD, None, headers=given))[0] == (401 if "Authorization" in headers else 202)
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_a_topic_without_grant_is_named_and_nothing_is_taken():
    site = await Site().start()
    other = b'{"group":"job_events","type":42,"payload":{"n":1}}'
    third = other.replace(b"42", b'"43"')
    for events in ([GOOD, other], [other, GOOD], [GOOD, GOOD, other, GOOD, third, other], [other]):
        code, answer, _ = await site.post(b"\n".join(events), "jobs")
        assert code == 403
        assert "job_events/42" in answer["error"], "the first one"
        assert site.intake.events == []
    assert (await site.post(GOOD, "jobs"))[0] == 202
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_without_any_grant_the_body_is_not_even_read():
    site = await Site().start()
    code, answer, _ = await site.post(b"nonsense", "sees")
    assert code == 403
    assert "no grant to emit" in answer["error"]
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_the_token_may_stand_in_the_url_but_not_in_a_cookie():
    site = await Site().start()
    assert (await site.post(GOOD, None, url=f"{site.url}?token=all"))[0] == 202
    assert (await site.post(GOOD, None, headers={"Cookie": "token=all"}))[0] == 401
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_other_methods_and_paths():
    site = await Site().start()
    code, _, headers = await site.post(None, method="GET")
    assert (code, headers.getRawHeaders("Allow")) == (405, ["POST"])
    code, answer, _ = await site.post(GOOD, url=site.url + "x")
    assert code == 404
    assert "POST /emit" in answer["error"]
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_what_is_too_large():
    site = await Site().start(max_payload=50, max_body=5000)
    code, answer, _ = await site.post(GOOD.replace(b"1", b"1" * 60))
    assert code == 413
    assert "limit of 50" in answer["error"]
    code, answer, _ = await site.post(b" " * 5001)
    assert code == 413
    assert "5000" in answer["error"]
    assert site.intake.events == []
    await site.stop()


WHERE = "amqp://tower@rabbit.internal:5672/ (prefix towerbus): refused"


@pytest.mark.parametrize(
    ("failure", "taken", "told"),
    [
        (BusUnavailable(WHERE, ("a",)), False, http.AWAY),
        (NotConfirmed(WHERE, ("a",)), True, http.DOUBT),
        (BusUnavailable(f"{FULL} (nacked)", ("a",)), False, FULL),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_was_not_confirmed_is_said_with_its_ids_and_why_is_logged(failure, taken, told):
    site = await Site().start()
    site.intake.answer = lambda: fail(failure)
    with capturedLogs() as logged:
        code, answer, headers = await site.post(GOOD)
        await site.post(GOOD)
    assert code == 503
    assert answer == {"error": told, "taken": taken, "ids": ["a"]}
    assert headers.hasHeader("Retry-After")
    lines = [formatEvent(made) for made in logged if made["log_format"].startswith("emits_unconfirmed")]
    assert lines == [f"emits_unconfirmed: 1 requests were answered with 503: {failure.reason}"], "one a second"
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_a_fault_of_ours_is_500_and_logged(logged_failures):
    site = await Site().start()
    site.intake.answer = lambda: fail(RuntimeError("broken"))
    code, answer, _ = await site.post(GOOD)
    assert (code, answer) == (500, {"error": "internal error"})
    assert [failure.type for failure in logged_failures] == [RuntimeError]
    logged_failures.clear()
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_the_answer_waits_for_the_confirmation_and_what_waits_is_bounded():
    site = await Site().start(max_under_way=1)
    confirmed = Deferred()
    site.intake.answer = lambda: confirmed
    first = Deferred.fromCoroutine(site.post(GOOD))
    while not site.intake.events:
        from twisted.internet import task

        await task.deferLater(reactor, 0.001, lambda: None)
    assert not first.called
    code, _, headers = await site.post(GOOD)
    assert code == 429
    assert headers.hasHeader("Retry-After")
    confirmed.callback(None)
    assert (await first)[0] == 202
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_no_token_is_logged():
    lines = []
    observe = lambda made: lines.append(formatEvent(made))  # noqa: E731
    globalLogPublisher.addObserver(observe)
    site = await Site().start()
    await site.post(GOOD, None, url=f"{site.url}?token=SECRET")
    await site.post(GOOD, "SECRET")
    await site.post(None, None, method="HEAD", url=f"{site.url}?token=SECRET")
    await site.post(None, None, method="HEAD", url=f"{site.url}x?token=SECRET")
    globalLogPublisher.removeObserver(observe)
    assert "SECRET" not in "".join(lines)
    await site.stop()
