"""`callback:URL` and `session:URL`."""

import pytest
import pytest_twisted
from support.application import SILENCE, application
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from towerbus.access import Grants, Identity
from towerbus.auth.callback import callback, session
from towerbus.auth.interface import Credential, IAuthenticator, Kind, NotNow
from towerbus.errors import ConfigError

ADA = {"user": 7, "name": "ada"}
TOKEN = Credential(Kind.TOKEN, "t-1", address="192.0.2.7")
SESSION = Credential(Kind.SESSION, "s-1", cookie='awx_sessionid="s-1";csrftoken=c', csrf="c", address="192.0.2.7")


def judged(plugin, credential=TOKEN):
    return maybeDeferred(plugin.authenticate, credential)


@pytest_twisted.ensureDeferred
async def test_a_token_goes_as_bearer_and_a_session_as_its_cookies():
    async with application(reactor, answer=ADA) as app:
        for make, shown, other in ((callback, TOKEN, SESSION), (session, SESSION, TOKEN)):
            plugin = make(app.url, reactor)
            assert verifyObject(IAuthenticator, plugin)
            assert await judged(plugin, shown) == Identity(7, "ada")
            assert plugin.authenticate(other) is None
            await plugin.close()
        first, second = (asked.headers for asked in app.asked)
        assert (first["authorization"], first.get("cookie"), first["x-forwarded-for"]) == (
            "Bearer t-1",
            None,
            "192.0.2.7",
        )
        assert (second.get("authorization"), second["cookie"]) == (None, SESSION.cookie)
        assert second["x-forwarded-for"] == "192.0.2.7"


@pytest.mark.parametrize(
    ("answer", "identity"),
    [
        ({"user": "u"}, Identity("u")),
        (
            {
                "user": 7,
                "name": "ada",
                "grants": {"subscribe": ["job_events/42"], "emit": ["*"]},
                "expires": 2000,
                "x": 1,
            },
            Identity(7, "ada", Grants(("job_events/42",), ("*",)), 2000.0),
        ),
        ({"user": 7, "name": None, "grants": None, "expires": None}, Identity(7)),
        ({"count": 1, "next": None, "results": [{"id": 7, "username": "ada", "email": "a@b"}]}, Identity(7, "ada")),
        ({"results": []}, None),
        ({"user": 7, "expires": 1000}, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_an_answer_means(answer, identity):
    async with application(reactor, answer=answer) as app:
        plugin = callback(app.url, reactor, now=lambda: 1000.0)
        assert await judged(plugin) == identity
        await plugin.close()


@pytest.mark.parametrize("status", [401, 403])
@pytest_twisted.ensureDeferred
async def test_a_no_is_no_and_is_asked_again(status):
    async with application(reactor, status=status) as app:
        plugin = callback(app.url, reactor)
        assert await judged(plugin) is None
        app.status, app.answer = 200, ADA
        assert await judged(plugin) == Identity(7, "ada")
        await plugin.close()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (302, b""),
        (404, b""),
        (500, b""),
        (204, b""),
        (201, ADA),
        (200, b""),
        (200, b"<html>hunter2 log in</html>"),
        (200, b"\xff"),
        (200, b"[" * 100_000),
        (200, {}),
        (200, []),
        (200, {"user": None}),
        (200, {"user": True}),
        (200, {"user": ""}),
        (200, {"user": 7.5}),
        (200, {"user": 7, "grants": {"subscribe": "jobs/*"}}),
        (200, {"user": 7, "grants": {"subscribe": ["job_events"]}}),
        (200, {"user": 7, "expires": "soon"}),
        (200, {"user": 7, "expires": 1798761600000}),
        (200, {"results": [{"id": 7}, {"id": 8}]}),
        (200, {"results": [{"username": "ada"}]}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_anything_else_is_not_now(status, answer):
    async with application(reactor, status=status, answer=answer) as app:
        plugin = callback(app.url, reactor)
        with pytest.raises(NotNow) as caught:
            await judged(plugin)
        assert str(caught.value).startswith(app.url)
        assert "t-1" not in str(caught.value)
        assert "hunter2" not in str(caught.value)
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_a_yes_is_remembered_for_a_while_and_is_at_hand():
    clock = Clock()
    async with application(reactor, answer=ADA) as app:
        plugin = callback(app.url, reactor, clock=clock)
        await judged(plugin)
        clock.advance(29.9)
        assert plugin.authenticate(TOKEN) == Identity(7, "ada")
        assert len(app.asked) == 1
        clock.advance(0.1)
        again = plugin.authenticate(TOKEN)
        assert isinstance(again, Deferred)
        await again
        assert len(app.asked) == 2
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_a_yes_is_not_remembered_past_its_end():
    clock = Clock()
    async with application(reactor, answer=ADA | {"expires": 1010}) as app:
        plugin = callback(app.url, reactor, clock=clock, now=lambda: 1000 + clock.seconds())
        assert (await judged(plugin)).expires == 1010
        clock.advance(10)
        assert await judged(plugin) is None
        assert len(app.asked) == 2
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_an_answer_is_used_for_nothing_but_its_question():
    async with application(reactor, answer=lambda asked: {"user": asked.headers["cookie"]}) as app:
        plugin = session(app.url, reactor)
        for cookie, address in (("sessionid=s; x=1", "a"), ("sessionid=s; x=2", "a"), ("sessionid=s; x=1", "b")):
            shown = Credential(Kind.SESSION, "s", cookie=cookie, address=address)
            assert (await judged(plugin, shown)).user == cookie
        assert len(app.asked) == 3
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_one_request_for_all_who_show_the_same_at_once():
    async with application(reactor, answer=SILENCE) as app:
        plugin = callback(app.url, reactor)
        asking = [judged(plugin) for _ in range(50)]
        await app.asked_times(1)
        app.release(ADA)
        assert await gatherResults(asking) == [Identity(7, "ada")] * 50
        assert len(app.asked) == 1
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_silence_is_not_now():
    clock = Clock()
    async with application(reactor, answer=SILENCE) as app:
        plugin = callback(app.url, reactor, clock=clock, deadline=3)
        asking = judged(plugin)
        await app.asked_times(1)
        clock.advance(3)
        with pytest.raises(NotNow, match="did not answer within 3 s"):
            await asking
        await plugin.close()


@pytest.mark.parametrize("secret", ["", "a b", "a\nX-Forwarded-For: 127.0.0.1", "\ud800", "é", "a\0"])
def test_what_no_header_can_hold_is_not_asked_about(secret):
    assert callback("http://127.0.0.1:9/", reactor).authenticate(Credential(Kind.TOKEN, secret)) is None


@pytest_twisted.ensureDeferred
async def test_cookies_are_passed_on_octet_by_octet_on_one_line():
    async with application(reactor, answer=ADA) as app:
        plugin = session(app.url, reactor)
        cookie = "sessionid=s; name=\xc3\xa9"
        await judged(plugin, Credential(Kind.SESSION, "s", cookie=cookie))
        assert app.asked[0].headers["cookie"] == cookie
        await judged(plugin, Credential(Kind.SESSION, "s", cookie="sessionid=s\r\nX-Forwarded-For: 127.0.0.1"))
        assert "x-forwarded-for" not in app.asked[1].headers
        await plugin.close()


def test_a_wrong_url_is_named_with_its_option():
    with pytest.raises(ConfigError, match="--auth callback:: got 'nonsense'"):
        callback("nonsense", reactor)
    with pytest.raises(ConfigError, match="--auth session:: got 'nonsense'"):
        session("nonsense", reactor)
