"""Tables of hashed tokens, and the token of one run."""

import hashlib
import os

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from towerbus.access import Grants, Identity
from towerbus.auth.interface import Credential, IAuthenticator, Kind, Refused
from towerbus.auth.tokens import OneRunToken, TokenFile
from towerbus.errors import ConfigError


def hashed(token):
    return hashlib.sha256(token.encode()).hexdigest()


def entry(token, rest="user = 7"):
    return f'[[token]]\nsha256 = "{hashed(token)}"\n{rest}\n'


def shown(token):
    return Credential(Kind.TOKEN, token)


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "tokens.toml"
    ticks = iter(range(1, 1000))

    def write(text):
        path.write_text(text)
        tick = next(ticks) * 10**9
        os.utime(path, ns=(tick, tick))
        return str(path)

    return write


def test_a_token_of_the_file_is_known(write):
    text = entry(
        "t1",
        'user = "u-1"\nname = "ada"\nsubscribe = ["job_events/42", "*/*"]\nemit = ["*"]\nexpires = 2027-01-01T00:00:00Z',
    ) + entry("t2").replace(hashed("t2"), hashed("t2").upper())
    tokens = TokenFile(write(text), Clock().seconds, now=lambda: 0)
    assert verifyObject(IAuthenticator, tokens)
    expected = Identity("u-1", "ada", Grants(("job_events/42", "*/*"), ("*",)), 1798761600.0)
    assert tokens.authenticate(shown("t1")) == expected
    assert tokens.authenticate(shown("t2")) == Identity(7)
    assert tokens.authenticate(shown("t3")) is None
    assert tokens.authenticate(shown("\ud800")) is None
    assert tokens.authenticate(Credential(Kind.SESSION, "t2")) is None


def test_an_expired_token_is_refused(write):
    times = [1000.0]
    tokens = TokenFile(write(entry("t", "user = 7\nexpires = 1001")), Clock().seconds, now=lambda: times[0])
    assert tokens.authenticate(shown("t")).expires == 1001
    times[0] = 1001.0
    with pytest.raises(Refused, match="user 7 .* has expired"):
        tokens.authenticate(shown("t"))


def test_the_file_is_read_again_when_it_changes_looked_at_once_a_second(write):
    clock = Clock()
    tokens = TokenFile(write(entry("old")), clock.seconds)
    write(entry("new"))
    clock.advance(0.9)
    assert tokens.authenticate(shown("new")) is None
    clock.advance(0.1)
    assert tokens.authenticate(shown("new")) == Identity(7)
    assert tokens.authenticate(shown("old")) is None


def test_a_broken_or_missing_file_leaves_the_tokens_as_they_were_and_is_told_of_once(write, tmp_path):
    clock = Clock()
    path = write(entry("good"))
    tokens = TokenFile(path, clock.seconds)
    with capturedLogs() as logs:
        write("[[token]\n")
        for _ in range(3):
            clock.advance(1)
            assert tokens.authenticate(shown("good")) == Identity(7)
        (tmp_path / "tokens.toml").unlink()
        clock.advance(1)
        assert tokens.authenticate(shown("good")) == Identity(7)
        write(entry("mended"))
        clock.advance(1)
        assert tokens.authenticate(shown("mended")) == Identity(7)
    assert [event["log_format"].partition(":")[0] for event in logs] == ["tokens_not_read"] * 2 + ["tokens_read"]
    assert path in logs[0]["reason"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", r"got \[\] at the top, wanted \[\[token\]\]"),
        ("token = 3", "at the top"),
        ("[[token]\n", "is no TOML: .*line 1"),
        ("\udcff", "is no TOML: not UTF-8 at byte 0"),
        ("[[token]]\nuser = 7", "entry 1: .*sha256"),
        (entry("a") + entry("b", "name = 'x'"), "entry 2: .*user"),
        (entry("a", "user = true"), "entry 1: .*user"),
        (entry("a", "user = ''"), "entry 1: .*user"),
        (entry("a", "user = 7\nsubscribe = ['job_events']"), r"entry 1: .*subscribe\[0\]"),
        (entry("a", "user = 7\nsubscribe = 'jobs/*'"), "entry 1: .*subscribe"),
        (entry("a", "user = 7\nadmin = true"), "entry 1: .*admin"),
        (entry("a", "user = 7\nexpires = 2027-01-01T00:00:00"), "entry 1: .*expires"),
        (entry("a", "user = 7\nexpires = 1798761600000"), "entry 1: .*expires"),
        (entry("a") + entry("a"), "entry 2: sha256 stands in an entry before"),
        (entry(""), "entry 1: sha256 is the hash of an empty text"),
        ('[[token]]\nsha256 = "a-token-in-the-clear"\nuser = 7', "entry 1: .*sha256"),
    ],
)
def test_a_mistake_is_named_and_no_token_quoted(tmp_path, text, wanted):
    path = tmp_path / "tokens.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=wanted) as caught:
        TokenFile(str(path), Clock().seconds)
    assert f"--auth tokens:{path}" in str(caught.value)
    assert "in-the-clear" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"tokens:.*nowhere: can't be read: No such file"):
        TokenFile(str(tmp_path / "nowhere"), Clock().seconds)


def test_the_token_of_one_run():
    one, other = OneRunToken(), OneRunToken()
    assert verifyObject(IAuthenticator, one)
    assert one.token != other.token
    assert len(one.token) == 32
    assert one.authenticate(shown(one.token)) == Identity(1, "everything", Grants(("*",), ("*",)))
    for wrong in (other.token, "", one.token[:-1], "\ud800"):
        assert one.authenticate(shown(wrong)) is None
    assert one.authenticate(Credential(Kind.SESSION, one.token)) is None
    assert one.token not in repr(one) + str(one)


def test_connections_are_told_whose_token_is_gone_and_whose_entry_is_another(write):
    told = []
    text = entry("stays") + entry("goes") + entry("more") + entry("moves")
    tokens = TokenFile(write(text), Clock().seconds)
    tokens.tell(told.append)
    before = {name: tokens.authenticate(shown(name)) for name in ("stays", "goes", "more", "moves")}
    tokens.reload()
    assert told == []
    write(entry("stays") + entry("more", 'user = 7\nsubscribe = ["*"]') + entry("moves", "user = 8") + entry("new"))
    tokens.reload()
    (turnover,) = told
    assert turnover.now(before["stays"]) is before["stays"] is tokens.authenticate(shown("stays"))
    assert turnover.now(before["goes"]) is turnover.now(before["moves"]) is None
    assert turnover.now(before["more"]) is tokens.authenticate(shown("more")) == Identity(7, "", Grants(("*",)))
    # What is equal, but was given out for something else, is another's.
    assert turnover.now(other := Identity(7)) is other


def test_they_are_told_also_where_nobody_asked_for_the_reload(write):
    told, clock = [], Clock()
    tokens = TokenFile(write(entry("old")), clock.seconds)
    tokens.tell(told.append)
    identity = tokens.authenticate(shown("old"))
    write(entry("new"))
    clock.advance(1.0)
    tokens.authenticate(shown("anything"))
    assert told[0].now(identity) is None
