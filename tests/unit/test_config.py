"""Options: three sources, one precedence, and mistakes that are named."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.running import environment

from towerbus.access import Rule, Who
from towerbus.commands.doctor import examine
from towerbus.config import settings
from towerbus.doctor.findings import Level
from towerbus.errors import ConfigError
from towerbus.options import EVERYTHING, OPTIONS, SERVER, WORKER, options

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


def test_credentials_count_more_than_the_file_and_less_than_the_environment(tmp_path):
    (tmp_path / "towerbus_bus").write_text("amqp://a:secret@b/c\n")
    (tmp_path / "towerbus_outbox").write_text("many")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with pytest.raises(ConfigError, match="credential towerbus_outbox: got 'many'"):
        from_file(tmp_path, "", environment=environment)
    (tmp_path / "towerbus_outbox").unlink()
    assert from_file(tmp_path, "bus = 'memory:'", environment=environment).bus == "amqp://a:secret@b/c"
    environment["TOWERBUS_BUS"] = "memory:"
    assert from_file(tmp_path, "", environment=environment).bus == "memory:"


def test_they_can_be_read_again(tmp_path):
    made = from_file(tmp_path, "outbox = 5000", {"max_frame": "3000"})
    (tmp_path / "towerbus.toml").write_text("outbox = 6000\nmax_frame = 1000\n")
    again = made.again()
    assert (again.outbox, again.max_frame) == (6000, 3000)
    assert made.differs(again) == ["outbox"]
    assert "3000" not in repr(made.source)


def test_lists(tmp_path):
    assert settings({"auth": ["jwt:a", "tokens:b"]}, {}).auth == ("jwt:a", "tokens:b")
    assert settings({}, {"TOWERBUS_AUTH": "jwt:a tokens:b"}).auth == ("jwt:a", "tokens:b")
    assert from_file(tmp_path, 'auth = ["jwt:a"]').auth == ("jwt:a",)


@pytest.mark.parametrize(("text", "on"), [("on", True), ("off", False)])
def test_a_switch(tmp_path, text, on):
    assert settings({"compression": text}, {}).compression is on
    assert settings({}, {"TOWERBUS_COMPRESSION": text}).compression is on
    assert from_file(tmp_path, f'compression = "{text}"').compression is on
    assert from_file(tmp_path, f"compression = {str(on).lower()}").compression is on


def test_access_rules(tmp_path):
    made = from_file(tmp_path, '[[access]]\ngroups = ["jobs"]\ntypes = ["a", "b"]\nwho = "own"\n')
    assert made.access == (Rule(("jobs",), Who.OWN, ("a", "b")),)


MISTAKES = {
    "outbox = 'many'": ["outbox", "'many'", "whole number"],
    "outbox = 1.5": ["outbox", "1.5", "whole number"],
    "outbox = -1": ["outbox", "-1", "1024 or more"],
    "outbox = true": ["outbox", "True", "whole number"],
    "compression = 1": ["compression", "1", "on or off"],
    "compression = 'yes'": ["compression", "'yes'", "on or off"],
    "compression = []": ["compression", "[]", "true or false"],
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
    "[[access]]\ngroups = 'jobs'\nwho = 'own'": ["access[0].groups", "'jobs'", "a list"],
    "[[access]]\ngroups = ['jobs']\nwho = 'own'\nwhere = 1": ["access", "where"],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_named_with_file_key_and_what_is_wanted(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, text)
    for part in ["towerbus.toml", *MISTAKES[text]]:
        assert part in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path):
    file = tmp_path / "t.toml"
    file.write_text('outbox = 5\nnothing = 1\n[[access]]\ngroups = "x"\nwhom = 1\n')
    with pytest.raises(ConfigError) as caught:
        settings({"drain": "soon"}, {"TOWERBUS_MAX_FRAME": "-"}, str(file))
    lines = str(caught.value).splitlines()
    for line, words in zip(
        lines,
        [
            "t.toml: access[0].groups: got 'x', wanted a list",
            "t.toml: access[0].whom: there is no such key; there are groups, who, types",
            "t.toml: access[0].who: is missing; it must be given; an access rule is a table",
            "t.toml: nothing: there is no such option",
            "TOWERBUS_MAX_FRAME: got '-', wanted a whole number",
            "t.toml: outbox: got 5, wanted a whole number",
            "--drain: got 'soon', wanted a number",
        ],
        strict=True,
    ):
        assert words in line


def test_a_key_that_is_nearly_one_is_told_which(tmp_path):
    for wrong, right in {"ping-interval": "ping_interval", "lissten": "listen"}.items():
        with pytest.raises(ConfigError, match=f"{wrong}: there is no such option; did you mean {right}[?]"):
            from_file(tmp_path, f"{wrong} = 1")


def test_the_mark_of_an_editor_at_the_begin_is_no_mistake(tmp_path):
    """A byte-order mark."""
    path = tmp_path / "towerbus.toml"
    path.write_text("outbox = 5000\n", encoding="utf-8-sig")
    assert settings({}, {}, str(path)).outbox == 5000


def test_a_mistake_elsewhere_is_named_by_where_it_stands():
    with pytest.raises(ConfigError, match="TOWERBUS_OUTBOX: got 'x'"):
        settings({}, {"TOWERBUS_OUTBOX": "x"})
    with pytest.raises(ConfigError, match="--outbox: got 'x'"):
        settings({"outbox": "x"}, {})
    with pytest.raises(ConfigError, match=r"missing\.toml: can't be read"):
        settings({}, {}, "missing.toml")


CARRIED_OUT = {
    'listen = "nonsense"': ["listen", "'nonsense'", "wanted is tcp:8051"],
    'http = "tcp:x"': ["http", "'tcp:x", "port: got 'x', wanted a number"],
    'bus = "amqqp://x"': ["bus", "'amqqp://x'", "wanted memory: or sqlite:PATH"],
    'bus = "sqlite:"': ["bus", "'sqlite:'", "wanted memory: or sqlite:PATH"],
    'bus = "amqp://localhost"': ["bus", "amqp:", "wanted memory: or sqlite:PATH"],
    'auth = ["pam"]': ["auth", "'pam'", "wanted jwt:PATH"],
    'auth = ["jwt:/nowhere/key"]': ["auth", "jwt:/nowhere/key", "wanted an HMAC secret"],
    'auth = ["tokens:/nowhere/tokens"]': ["auth", "tokens:/nowhere/tokens", "can't be read"],
    'auth = ["callback:ftp://x/"]': ["auth", "'ftp://x/'", "wanted http://HOST"],
    'auth = ["session:x"]': ["auth", "'x'", "wanted http://HOST"],
    'ask_url = "x"': ["ask_url", "'x'", "wanted http://HOST"],
}


@pytest.mark.parametrize("text", CARRIED_OUT)
@pytest.mark.parametrize("command", [["twistd", "-n", "--pidfile=", "towerbus"], ["towerbus", "doctor"]], ids=" ".join)
def test_a_mistake_that_shows_when_it_is_carried_out_is_traced_to_its_file(tmp_path, text, command):
    """Also without starting anything: by `towerbus doctor`."""
    path = tmp_path / "towerbus.toml"
    path.write_text(text)
    if "amqp://localhost" in text and "doctor" in command:
        pytest.skip("right for the separate commands")
    words = [str(Path(sys.executable).with_name(command[0])), *command[1:], "--config", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment())
    said = done.stdout + done.stderr
    assert (done.returncode, "Traceback" in said) == (1, False), said
    key, got, wanted = CARRIED_OUT[text]
    wanted = (
        wanted.replace(" or sqlite", ", sqlite").replace("wanted memory", "memory")
        if "bus" in text and "doctor" in command
        else wanted
    )
    assert f"{path}: {key}" in said
    assert got in said
    assert wanted in said


def test_the_doctor_sees_that_both_listeners_have_one_port(tmp_path):
    path = tmp_path / "towerbus.toml"
    path.write_text('listen = "tcp:8052"')
    (found,) = [each for each in examine(str(path), {}, "", 1) if each.level is Level.ERROR]
    assert found.text == "--http: 'tcp:8052:interface=127.0.0.1' has the port 8052 of --listen, 'tcp:8052'"


UNSET = re.compile(r"^# (?=(?:ask_url|log_max_bytes|log_max_age|bridge_state) = )", re.MULTILINE)


def test_the_sample_names_every_option_with_its_default():
    table = tomllib.loads(UNSET.sub("", SAMPLE.read_text()))
    assert table.keys() == {option.key for option in OPTIONS}
    for option in OPTIONS:
        value = table[option.key]
        if option.default is not None:
            assert (tuple(value) if isinstance(value, list) else value) == option.default


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_the_sample_says_of_each_option_what_help_says_why_and_for_whom(option):
    (block,) = [
        block
        for block in SAMPLE.read_text().partition("\n# [[")[0].split("\n\n")
        if re.search(rf"^(# )?{option.key} = ", block, re.MULTILINE)
    ]
    help_, why, whom, _ = block.splitlines()
    assert help_ == f"# {option.help[0].upper()}{option.help[1:]}."
    assert re.fullmatch(r"# Why: \S.{20,}\.", why)
    assert whom == f"# For {', '.join(option.commands)}."


def test_each_command_has_its_options():
    assert {option.key for option in options(WORKER)} >= {"bus", "log_max_bytes", "record_pause"}
    assert "listen" not in {option.key for option in options(WORKER)}
    assert "canary_interval" in {option.key for option in options(SERVER)}
    assert {option.key for option in options(EVERYTHING)} >= {"listen", "log_max_bytes", "tail_bytes"}
