"""Asking the application over HTTP."""

import gzip

import pytest
import pytest_twisted
from support.application import SILENCE, application
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import Clock

from towerbus.auth.asking import Answer, Application
from towerbus.auth.interface import NotNow
from towerbus.errors import ConfigError


def asker(url, **options):
    return Application(url, reactor, option="--auth callback:", **options)


@pytest_twisted.ensureDeferred
async def test_the_answer_comes_whatever_its_status():
    async with application(reactor, status=418, answer=b"teapot") as app:
        one = asker(app.url)
        assert await one.ask("POST", {"X-Word": "a"}, b"body") == Answer(418, b"teapot")
        (asked,) = app.asked
        assert (asked.method, asked.path, asked.body) == ("POST", "/api/me/", b"body")
        assert asked.headers["x-word"] == "a"
        await one.close()


@pytest_twisted.ensureDeferred
async def test_connections_are_kept():
    async with application(reactor) as app:
        one = asker(app.url)
        for _ in range(3):
            await one.ask("GET", {})
        assert app.connections == 1
        await one.close()


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_an_answer_and_is_not_followed():
    async with application(reactor, status=302, headers={"Location": "/login"}) as app:
        one = asker(app.url)
        assert (await one.ask("GET", {})).status == 302
        assert len(app.asked) == 1
        await one.close()


@pytest_twisted.ensureDeferred
async def test_a_cookie_that_is_set_for_one_is_not_sent_for_the_next():
    async with application(reactor, headers={"Set-Cookie": "sessionid=ada; Path=/"}) as app:
        one = asker(app.url)
        await one.ask("GET", {"Authorization": "Bearer ada"})
        await one.ask("GET", {"Authorization": "Bearer eve"})
        assert ["cookie" in asked.headers for asked in app.asked] == [False, False]
        await one.close()


@pytest_twisted.ensureDeferred
async def test_silence_ends_at_the_deadline_and_its_connection_with_it():
    clock = Clock()
    async with application(reactor, answer=SILENCE) as app:
        one = asker(app.url, deadline=5, clock=clock)
        asking = one.ask("GET", {})
        await app.asked_times(1)
        clock.advance(4.9)
        assert not asking.called
        clock.advance(0.1)
        with pytest.raises(NotNow, match=r"http://127.0.0.1:\d+/api/me/ did not answer within 5 s"):
            await asking
        assert len(app.asked) == 1
        app.answer = b"ok"
        assert (await one.ask("GET", {})).body == b"ok"
        assert app.connections == 2
        assert clock.getDelayedCalls() == []
        await one.close()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_stops_in_its_middle_ends_at_the_deadline():
    clock = Clock()
    async with application(reactor, answer=SILENCE) as app:
        one = asker(app.url, clock=clock)
        asking = one.ask("GET", {})
        await app.asked_times(1)
        app.held[0].write(b"half")
        clock.advance(5)
        with pytest.raises(NotNow, match="within 5 s"):
            await asking
        await one.close()


@pytest_twisted.ensureDeferred
async def test_no_more_requests_than_allowed_are_in_flight():
    async with application(reactor, answer=SILENCE) as app:
        one = asker(app.url, in_flight=2)
        asking = [one.ask("GET", {}) for _ in range(4)]
        await app.asked_times(2)
        assert len(app.asked) == 2
        app.release("first")
        await gatherResults(asking[:2])
        await app.asked_times(4)
        app.release("second")
        assert [answer.body for answer in await gatherResults(asking)] == [b'"first"'] * 2 + [b'"second"'] * 2
        await one.close()


@pytest_twisted.ensureDeferred
async def test_who_waits_for_a_turn_too_long_never_reaches_the_application():
    clock = Clock()
    async with application(reactor, answer=SILENCE) as app:
        one = asker(app.url, in_flight=1, deadline=5, clock=clock)
        first, second = one.ask("GET", {}), one.ask("GET", {})
        await app.asked_times(1)
        clock.advance(2.5)
        with pytest.raises(NotNow, match="too many questions before it"):
            await second
        app.release("late")
        assert (await first).status == 200
        assert len(app.asked) == 1
        await one.close()


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_was_closed_meanwhile_costs_a_second_try_and_no_more():
    async with application(reactor, answer=b"ok") as app:
        one = asker(app.url)
        await one.ask("POST", {}, b"1")
        app.answer = lambda asked: ConnectionError() if len(app.asked) == 2 else b"ok"
        assert (await one.ask("POST", {}, b"2")).body == b"ok"
        assert [asked.body for asked in app.asked] == [b"1", b"2", b"2"]
        app.answer = ConnectionError()
        with pytest.raises(NotNow, match="can't be asked: ConnectionDone"):
            await one.ask("GET", {})
        assert len(app.asked) == 5
        await one.close()


@pytest_twisted.ensureDeferred
async def test_the_second_try_has_a_connection_of_its_own_as_the_other_kept_ones_may_be_closed_too():
    async with application(reactor, answer=SILENCE) as app:
        one = asker(app.url)
        asking = [one.ask("GET", {}) for _ in range(2)]
        await app.asked_times(2)
        app.release("x")
        await gatherResults(asking)
        app.answer = lambda asked: ConnectionError() if app.connections == 2 else b"ok"
        assert (await one.ask("GET", {})).body == b"ok"
        await one.close()


@pytest_twisted.ensureDeferred
async def test_nobody_there():
    async with application(reactor) as app:
        url = app.url
    one = asker(url)
    with pytest.raises(NotNow, match="can't be asked: Connection was refused"):
        await one.ask("GET", {"Authorization": "Bearer hunter2"})
    await one.close()


@pytest_twisted.ensureDeferred
async def test_an_answer_without_end_is_not_read():
    async with application(reactor, answer=b"x" * (1024 * 1024)) as app:
        one = asker(app.url)
        assert len((await one.ask("GET", {})).body) == 1024 * 1024
        app.answer = b"x" * (1024 * 1024 + 1)
        with pytest.raises(NotNow, match="longer than 1048576 bytes"):
            await one.ask("GET", {})
        app.answer, app.headers = gzip.compress(bytes(2 * 1024 * 1024)), {"Content-Encoding": "gzip"}
        with pytest.raises(NotNow, match="longer than 1048576 bytes"):
            await one.ask("GET", {})
        await one.close()


@pytest_twisted.ensureDeferred
async def test_who_cancels_is_not_told_that_the_application_can_not_be_asked():
    async with application(reactor, answer=SILENCE) as app:
        one = asker(app.url)
        connecting = one.ask("GET", {})
        connecting.cancel()
        with pytest.raises(CancelledError):
            await connecting
        asking = one.ask("GET", {})
        await app.asked_times(1)
        asking.cancel()
        with pytest.raises(CancelledError):
            await asking
        await one.close()


@pytest_twisted.ensureDeferred
async def test_closing_ends_what_is_in_flight():
    async with application(reactor, answer=SILENCE) as app:
        one = asker(app.url)
        asking = one.ask("GET", {})
        await app.asked_times(1)
        await one.close()
        with pytest.raises(NotNow, match="can't be asked"):
            await asking
        assert len(app.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/me",
        "ftp://example.org/",
        "http:///path",
        "http://example.org:port/",
        "http://[::1/",
        "http://ex ample.org/",
        "http://example.org/é",
        "http://example.org/\n",
        "http://user:hunter2@example.org/",
    ],
)
def test_a_url_that_can_not_be_asked_is_a_named_mistake(url):
    with pytest.raises(ConfigError, match=r"--auth callback:: got .*wanted http://HOST") as caught:
        asker(url)
    assert "hunter2" not in str(caught.value)


def test_a_url_is_shown_without_its_query():
    assert asker("https://example.org:8443/me?key=hunter2").shown == "https://example.org:8443/me"
    assert asker("http://[::1]/me").shown == "http://[::1]/me"
