"""Keys that are fetched from a URL."""

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from support.application import SILENCE, application
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from towerbus.access import Identity
from towerbus.auth.interface import Credential, Kind, NotNow
from towerbus.auth.jwt import jwt

OLD, NEW = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def published(**keys):
    return {"keys": [ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid} for kid, key in keys.items()]}


def shown(key, kid, **claims):
    from jwt import encode

    headers = None if kid is None else {"kid": kid}
    return Credential(Kind.TOKEN, encode({"sub": "7"} | claims, key, algorithm="ES256", headers=headers))


def judged(plugin, credential):
    return maybeDeferred(plugin.authenticate, credential)


def formats(logs):
    return [event["log_format"].partition(":")[0] for event in logs if event["log_namespace"] == "towerbus.auth.jwks"]


@pytest_twisted.ensureDeferred
async def test_keys_are_fetched_once_for_all_and_then_the_answer_is_at_hand():
    async with application(reactor, answer=SILENCE) as app:
        plugin = jwt(app.url, reactor, clock=Clock())
        asking = [judged(plugin, shown(OLD, kid)) for kid in ("old", None)]
        await app.asked_times(1)
        app.release(published(old=OLD))
        assert await gatherResults(asking) == [Identity(7)] * 2
        assert plugin.authenticate(shown(OLD, "old", name="ada")) == Identity(7, "ada")
        assert len(app.asked) == 1
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_an_unknown_key_is_looked_for_at_most_once_a_minute():
    clock = Clock()
    async with application(reactor, answer=published(old=OLD)) as app:
        plugin = jwt(app.url, reactor, clock=clock)
        known = shown(OLD, "old")
        await judged(plugin, known)
        app.answer = published(new=NEW)
        clock.advance(59)
        assert plugin.authenticate(shown(NEW, "new")) is None
        assert len(app.asked) == 1
        clock.advance(1)
        assert plugin.authenticate(shown(NEW, "old")) is None, "a wrong signature of a known key calls for no fetch"
        assert await judged(plugin, shown(NEW, "new")) == Identity(7)
        assert plugin.authenticate(known) is None, "what a withdrawn key has signed is forgotten"
        assert len(app.asked) == 2
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_nothing_can_be_judged_before_the_first_fetch_and_not_every_client_tries_one():
    clock = Clock()
    async with application(reactor, status=503) as app:
        plugin = jwt(app.url, reactor, clock=clock)
        with capturedLogs() as logs:
            with pytest.raises(NotNow, match=r"no keys from http://127.* answered 503; wanted 200"):
                await judged(plugin, shown(OLD, "old"))
            with pytest.raises(NotNow):
                plugin.authenticate(shown(OLD, "old"))
        assert formats(logs) == ["keys_not_fetched"]
        assert len(app.asked) == 1
        app.status, app.answer = 200, published(old=OLD)
        clock.advance(2)
        assert await judged(plugin, shown(OLD, "old")) == Identity(7)
        await plugin.close()


@pytest.mark.parametrize("answer", [b"", b"{}", {"keys": []}, {"keys": [{"kty": "oct", "k": "A" * 64}]}])
@pytest_twisted.ensureDeferred
async def test_what_is_no_set_of_public_keys_is_not_now(answer):
    async with application(reactor, answer=answer) as app:
        plugin = jwt(app.url, reactor, clock=Clock())
        with pytest.raises(NotNow, match="no keys from"):
            await judged(plugin, shown(OLD, "old"))
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_a_fetch_that_fails_leaves_the_keys_as_they_were():
    clock = Clock()
    async with application(reactor, answer=published(old=OLD)) as app:
        plugin = jwt(app.url, reactor, clock=clock)
        await judged(plugin, shown(OLD, "old"))
        app.status = 500
        clock.advance(60)
        with pytest.raises(NotNow):
            await judged(plugin, shown(NEW, "new"))
        with pytest.raises(NotNow):
            plugin.authenticate(shown(NEW, "new"))
        assert plugin.authenticate(shown(OLD, "old", name="x")) == Identity(7, "x")
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_old_keys_are_renewed_beside_the_work():
    clock = Clock()
    async with application(reactor, answer=published(old=OLD)) as app:
        plugin = jwt(app.url, reactor, clock=clock)
        known = shown(OLD, "old")
        await judged(plugin, known)
        app.answer = SILENCE
        clock.advance(3600)
        assert plugin.authenticate(known) == Identity(7)
        await app.asked_times(2)
        waiting = plugin.authenticate(shown(NEW, "new"))
        assert isinstance(waiting, Deferred), "the fetch in flight may bring it"
        app.release(published(new=NEW))
        assert await waiting == Identity(7)
        assert plugin.authenticate(known) is None
        assert len(app.asked) == 2
        await plugin.close()


@pytest_twisted.ensureDeferred
async def test_a_renewal_that_fails_is_told_of_and_harms_nobody():
    clock = Clock()
    async with application(reactor, answer=published(old=OLD)) as app:
        plugin = jwt(app.url, reactor, clock=clock)
        await judged(plugin, shown(OLD, "old"))
        app.answer = SILENCE
        clock.advance(3600)
        assert plugin.authenticate(shown(OLD, "old")) == Identity(7)
        await app.asked_times(2)
        with capturedLogs() as logs:
            clock.advance(5)
            await plugin.close()
        assert formats(logs) == ["keys_not_fetched"]
        assert plugin.authenticate(shown(OLD, "old")) == Identity(7)
