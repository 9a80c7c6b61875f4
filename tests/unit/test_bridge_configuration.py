import tomllib

import pytest

from towerbus.bridge.configuration import read
from towerbus.errors import ConfigError

GOOD = """
[[bridge]]
name = "callback"
[bridge.source]
kind = "amqp"
url = "env:CALLBACK"
queue = "tasks"
[bridge.mapping]
group = "job_events"
type = "{payload.job}"
filter = [{ value = "{payload.event}", not_in = ["verbose"] }]

[[bridge]]
name = "hook"
topics = ["jobs/*", "*/42", "*"]
[bridge.sink]
kind = "webhook"
url = "https://example.com/"
secret = "0123456789abcdef01234567"
"""


def parsed(text, **environment):
    return read(tomllib.loads(text)["bridge"], "b.toml", environment)


def test_good_tables():
    source, sink = parsed(GOOD, CALLBACK="amqp://u:p@h/")
    assert (source.name, source.side, source.kind, source.options.url) == (
        "callback",
        "source",
        "amqp",
        "amqp://u:p@h/",
    )
    assert source.mapping.type == "{payload.job}"
    assert (sink.side, sink.topics, sink.options.batch) == ("sink", ("jobs/*", "*/42", "*"), 100)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "callback"', "", "b.toml: bridge number 1: name: got nothing, wanted 1 to 40 letters"),
        ('name = "callback"', 'name = "a b"', "bridge 'a b': name: got 'a b', wanted"),
        ('name = "hook"', 'name = "callback"', "bridge 'callback': name: got 'callback', wanted a name of its own"),
        ('kind = "amqp"', 'kind = "kafka"', "source.kind: got 'kafka', wanted one of 'amqp', 'http'"),
        ('queue = "tasks"', "queue = 5", "bridge 'callback': source.queue: got 5, wanted a text"),
        ('queue = "tasks"', 'queue = ""', "source: queue: got nothing, wanted the name of a queue"),
        ('queue = "tasks"', "", "source.queue: is missing"),
        (
            'queue = "tasks"',
            'queue = "tasks"\nqeue = 1',
            "source.qeue: there is no such key; there are url, queue, prefetch",
        ),
        ('queue = "tasks"', 'queue = "t"\nprefetch = 0', "prefetch: got 0, wanted a number from 1"),
        ("env:CALLBACK", "env:MISSING", "source.url: got 'env:MISSING', wanted a variable that is in the environment"),
        (
            'group = "job_events"',
            'group = "{paylod.x}"',
            "mapping: group: got '{paylod.x}': {paylod.x} is no place: places are {payload.KEY}",
        ),
        ('group = "job_events"', 'group = "{x"', "mapping: group: got '{x': it is no template such as job_events or"),
        ('group = "job_events"', 'payload = "payload..x"', "payload: got 'payload..x', wanted a path in the body"),
        ('group = "job_events"', 'group = "a b"', "mapping: group: group 'a b' must be letters"),
        ('group = "job_events"', "group = 7", "mapping.group: got 7, wanted a text"),
        ('group = "job_events"', 'shape = "rnner"', "mapping.shape: got 'rnner', wanted plain, runner"),
        ('group = "job_events"', 'grup = "x"', "mapping.grup: there is no such key; there are shape, group"),
        ('not_in = ["verbose"]', 'matches = "("', "matches: got '(', wanted a regular expression"),
        (', not_in = ["verbose"]', "", "a filter needs in, not_in or matches"),
        (
            'not_in = ["verbose"]',
            "notin = []",
            "mapping.filter[0].notin: there is no such key; there are value, in, not_in",
        ),
        ('topics = ["jobs/*", "*/42", "*"]', 'topics = ["jobs"]', "topics: got 'jobs', wanted are patterns"),
        ('topics = ["jobs/*", "*/42", "*"]', "topics = []", "topics: got [], wanted are patterns"),
        ('topics = ["jobs/*", "*/42", "*"]', "mapping = {}", "mapping: there is no such key in a bridge with a sink"),
        ("[bridge.sink]", "[bridge.skin]", "got neither, wanted one table: [bridge.source] or [bridge.sink]"),
        ("0123456789abcdef01234567", "short", "secret: it has 5 bytes, wanted are 24 or more"),
        (
            'secret = "0123456789abcdef01234567"',
            "secret = 12345",
            "sink.secret: got a value that is not shown, wanted a text",
        ),
    ],
)
def test_each_mistake_is_named_with_its_place(old, new, words):
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parsed(GOOD.replace(old, new), CALLBACK="amqp://h/")
    assert words in str(caught.value)
    assert str(caught.value).startswith("b.toml: bridge ")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("env:CALLBACK", "http://h/", "bridge 'callback': source: url: scheme 'http' is not amqp or amqps"),
        (
            "https://example.com/",
            "ftp://example.com/",
            "bridge 'hook': sink: url: got 'ftp://example.com/', wanted http:",
        ),
    ],
)
def test_urls_are_checked_with_the_rest(old, new, words):
    with pytest.raises(ConfigError) as caught:
        parsed(GOOD.replace(old, new), CALLBACK="amqp://h/")
    assert words in str(caught.value)


def test_a_routing_key_of_headers_would_bury_every_event():
    table = """
[[bridge]]
name = "lake"
[bridge.sink]
kind = "amqp"
url = "amqp://h/"
exchange = "x"
routing_key = "{headers.tenant}"
"""
    with pytest.raises(ConfigError, match="an event has no headers"):
        parsed(table)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parsed(
            GOOD.replace('queue = "tasks"', "queue = 5").replace("job_events", "a b").replace("0123456789abcdef", ""),
            CALLBACK="x",
        )
    assert len(str(caught.value).splitlines()) == 3


def test_all_mistakes_of_one_table_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parsed(
            GOOD.replace('queue = "tasks"', 'queue = 5\nprefetch = "many"\nqeue = 1')
            .replace('group = "job_events"', 'group = "a b"\nid = "{x"\npayload = "body"')
            .replace('secret = "0123456789abcdef01234567"', 'secret = "env:NONE"\nbatch = "all"\nretry = 5')
        )
    for line, words in zip(
        str(caught.value).splitlines(),
        [
            "bridge 'callback': source.url: got 'env:CALLBACK'",
            "bridge 'callback': source.queue: got 5",
            "bridge 'callback': source.prefetch: got 'many'",
            "bridge 'callback': source.qeue: there is no such key; there are url, queue, prefetch",
            "bridge 'callback': mapping: group: group 'a b' must be letters, digits and _ only, and not empty",
            "bridge 'callback': mapping: id: got '{x': it is no template such as job_events or {payload.job} (expected '}' before",
            "bridge 'callback': mapping: payload: got 'body'",
            "bridge 'hook': sink.secret: got 'env:NONE'",
            "bridge 'hook': sink.batch: got 'all'",
            "bridge 'hook': sink.retry: there is no such key; there are url, secret, batch",
        ],
        strict=True,
    ):
        assert words in line


def test_something_else_than_tables():
    with pytest.raises(ConfigError, match=r"wanted are tables \[\[bridge\]\]"):
        read({"name": "x"}, "b.toml", {})


@pytest.mark.parametrize("listen", ["tcp:8054", "systemd:domain=INET:index=0"])
def test_tcp_without_auth_is_refused(listen):
    text = f'[[bridge]]\nname = "e"\n[bridge.source]\nkind = "http"\nlisten = "{listen}"\n'
    with pytest.raises(ConfigError, match="auth: none is given"):
        parsed(text)
