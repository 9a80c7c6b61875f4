"""Options: three sources, one precedence, and mistakes that are named."""

import tomllib
from pathlib import Path

import pytest

from towerbus.access import Rule, Who
from towerbus.config import OPTIONS, settings
from towerbus.errors import ConfigError

SAMPLE = Path(__file__).parents[2] / "etc" / "towerbus.toml"


def from_file(tmp_path, text, given=None, environment=None):
    path = tmp_path / "towerbus.toml"
    path.write_text(text)
    return settings(given or {}, environment or {}, str(path))


def test_defaults():
    made = settings({}, {})
    assert (made.bus, made.max_frame, made.access) == ("memory:", 65536, None)


def test_precedence(tmp_path):
    text = "max_frame = 1000\nping_interval = 5\noutbox = 2000\n"
    made = from_file(tmp_path, text, {"max_frame": "3000"}, {"TOWERBUS_MAX_FRAME": "2000", "TOWERBUS_OUTBOX": "4000"})
    assert (made.max_frame, made.outbox, made.ping_interval) == (3000, 4000, 5.0)


def test_the_file_may_be_named_in_the_environment(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("outbox = 5000")
    assert settings({}, {"TOWERBUS_CONFIG": str(path)}).outbox == 5000


def test_lists(tmp_path):
    assert settings({"auth": ["jwt:a", "tokens:b"]}, {}).auth == ("jwt:a", "tokens:b")
    assert settings({}, {"TOWERBUS_AUTH": "jwt:a tokens:b"}).auth == ("jwt:a", "tokens:b")
    assert from_file(tmp_path, 'auth = ["jwt:a"]').auth == ("jwt:a",)


def test_access_rules(tmp_path):
    made = from_file(tmp_path, '[[access]]\ngroups = ["jobs"]\ntypes = ["a", "b"]\nwho = "own"\n')
    assert made.access == (Rule(("jobs",), Who.OWN, ("a", "b")),)


MISTAKES = {
    "outbox = 'many'": ["outbox", "'many'", "whole number"],
    "outbox = 1.5": ["outbox", "1.5", "whole number"],
    "outbox = -1": ["outbox", "-1", "1024 or more"],
    "outbox = true": ["outbox", "True", "whole number"],
    "outbox = [1]": ["outbox", "[1]", "whole number"],
    "max_frame = 0": ["max_frame", "0", "125 or more"],
    "max_payload = ''": ["max_payload", "''", "whole number"],
    "ping_interval = 0": ["ping_interval", "0", "1 or more"],
    "ping_interval = inf": ["ping_interval", "inf", "seconds"],
    "ping_interval = nan": ["ping_interval", "nan", "seconds"],
    "ping_interval = 'soon'": ["ping_interval", "'soon'", "seconds"],
    "close_timeout = []": ["close_timeout", "[]", "seconds"],
    "handshake_timeout = {}": ["handshake_timeout", "{}", "seconds"],
    "log_max_age = -5": ["log_max_age", "-5", "seconds"],
    "log_max_bytes = 1e3": ["log_max_bytes", "1000.0", "1024 or more"],
    "listen = 8051": ["listen", "8051", "text"],
    "listen = ''": ["listen", "''", "text"],
    "http = []": ["http", "[]", "text"],
    "bus = 1": ["bus", "1", "text"],
    "ask_url = false": ["ask_url", "False", "text"],
    "auth = 5": ["auth", "5", "list of texts"],
    "auth = [5]": ["auth", "[5]", "list of texts"],
    "auth = ['']": ["auth", "list of texts"],
    "outbox = 1" + "0" * 400: ["outbox", "whole number"],
    "path = ['websocket']": ["path", "begin with /"],
    "origin = ['[']": ["origin", "patterns"],
    "path = {}": ["path", "list of texts"],
    "origin = [1]": ["origin", "list of texts"],
    "session_cookie = [[]]": ["session_cookie", "list of texts"],
    "prot = 1": ["prot", "no such option", "listen"],
    "outbox = ": ["is not TOML"],
    "access = 5": ["access", "[[access]]"],
    "[[access]]\nwho = 'everyone'": ["access", "groups"],
    "[[access]]\ngroups = ['jobs']\nwho = 'all'": ["access", "'all'", "everyone"],
    "[[access]]\ngroups = 'jobs'\nwho = 'own'": ["access", "array"],
    "[[access]]\ngroups = ['jobs']\nwho = 'own'\nwhere = 1": ["access", "where"],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_named_with_file_key_and_what_is_wanted(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, text)
    for part in ["towerbus.toml", *MISTAKES[text]]:
        assert part in str(caught.value)


def test_a_mistake_elsewhere_is_named_by_where_it_stands():
    with pytest.raises(ConfigError, match="TOWERBUS_OUTBOX: got 'x'"):
        settings({}, {"TOWERBUS_OUTBOX": "x"})
    with pytest.raises(ConfigError, match="--outbox: got 'x'"):
        settings({"outbox": "x"}, {})
    with pytest.raises(ConfigError, match=r"missing\.toml: can't be read"):
        settings({}, {}, "missing.toml")


def test_the_sample_names_every_option_with_its_default():
    lines = SAMPLE.read_text().splitlines()
    text = "\n".join(line[2:] if line.startswith("# ask_url") else line for line in lines)
    table = tomllib.loads(text)
    assert table.keys() == {option.key for option in OPTIONS}
    for option in OPTIONS:
        value = table[option.key]
        assert (tuple(value) if isinstance(value, list) else value) == option.default
