"""Several `--auth` plugins as one."""

import hashlib

import pytest
import pytest_twisted
from support.application import application
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from towerbus.access import Identity
from towerbus.auth.chain import Chain, authenticator
from towerbus.auth.interface import Credential, IAuthenticator, Kind, NotNow, Refused
from towerbus.auth.jwt import mint
from towerbus.errors import ConfigError

ADA, EVE = Identity(7, "ada"), Identity(8, "eve")
SHOWN = Credential(Kind.TOKEN, "t")


@implementer(IAuthenticator)
class Says:
    """Answers what it was made with; errors are raised."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = 0

    def authenticate(self, credential):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def judged(*answers):
    return Chain([Says(answer) for answer in answers]).authenticate(SHOWN)


def test_the_first_that_knows_decides_and_the_answer_is_at_hand():
    plugins = [Says(None), Says(ADA), Says(EVE)]
    chain = Chain(plugins)
    assert verifyObject(IAuthenticator, chain)
    assert chain.authenticate(SHOWN) is ADA
    assert [plugin.asked for plugin in plugins] == [1, 1, 0]
    assert judged(None, None) is None
    assert judged() is None


def test_a_refusal_decides():
    with pytest.raises(Refused, match="expired"):
        judged(None, Refused("expired"), ADA)


def test_who_is_away_is_passed_over_and_counts_where_nobody_knows():
    assert judged(NotNow("away"), ADA) is ADA
    with pytest.raises(NotNow, match="away"):
        judged(NotNow("away"), None)


@pytest_twisted.ensureDeferred
async def test_who_must_ask_is_waited_for_and_then_the_next_is_asked():
    asked = Deferred()
    last = Says(EVE)
    answer = Chain([Says(None), Says(asked), last]).authenticate(SHOWN)
    assert isinstance(answer, Deferred)
    assert last.asked == 0
    asked.callback(None)
    assert await answer is EVE
    assert await judged(succeed(ADA), EVE) is ADA
    assert await judged(succeed(None), succeed(None), succeed(EVE)) is EVE
    assert await judged(succeed(None), None) is None


@pytest_twisted.ensureDeferred
async def test_failures_of_who_must_ask_count_as_those_at_hand():
    assert await judged(fail(NotNow("away")), ADA) is ADA
    for answers in (
        (fail(NotNow("away")), None),
        (NotNow("away"), succeed(None)),
        (fail(NotNow("away")), succeed(None)),
    ):
        with pytest.raises(NotNow, match="away"):
            await judged(*answers)
    with pytest.raises(Refused):
        await judged(fail(Refused("no")), ADA)
    with pytest.raises(Refused):
        await judged(succeed(None), Refused("no"))
    with pytest.raises(ZeroDivisionError):
        await judged(fail(ZeroDivisionError()), ADA)


@pytest_twisted.ensureDeferred
async def test_the_strings_of_auth_make_the_plugins(tmp_path):
    key, tokens = tmp_path / "key", tmp_path / "tokens.toml"
    key.write_bytes(b"k" * 32)
    tokens.write_text(f'[[token]]\nsha256 = "{hashlib.sha256(b"opaque").hexdigest()}"\nuser = "from file"')
    async with application(reactor, answer=lambda asked: {"user": asked.path}) as app:
        base = app.url.removesuffix("/api/me/")
        chain = authenticator(
            [f"jwt:{key}", f"tokens:{tokens}", f"callback:{base}/callback?x=1", f"session:{base}/session"], reactor
        )
        assert chain.authenticate(Credential(Kind.TOKEN, mint(str(key), user=7))) == Identity(7)
        assert chain.authenticate(Credential(Kind.TOKEN, "opaque")) == Identity("from file")
        assert (await chain.authenticate(Credential(Kind.TOKEN, "other"))).user == "/callback?x=1"
        assert (await chain.authenticate(Credential(Kind.SESSION, "s", cookie="sessionid=s"))).user == "/session"
        await chain.close()


@pytest.mark.parametrize("spec", ["", "jwt", "jwt:", "nonsense:x", "/etc/key", "JWT:/etc/key", "tokens:", ":x"])
def test_a_wrong_string_is_quoted_with_what_is_wanted(spec):
    with pytest.raises(ConfigError) as caught:
        authenticator([spec], reactor)
    wanted = "jwt:PATH, jwt:URL, tokens:FILE, callback:URL or session:URL"
    assert str(caught.value) == f"--auth: got {spec!r}, wanted {wanted}"


@pytest.mark.parametrize(
    "spec", ["jwt:/nowhere", "tokens:/nowhere", "callback:nowhere", "session:nowhere", "jwt:https://"]
)
def test_what_a_plugin_can_not_use_is_named(spec):
    with pytest.raises(ConfigError, match=f"--auth {spec.partition(':')[0]}:"):
        authenticator([spec], reactor)
