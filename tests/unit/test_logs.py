"""Log lines for programs: one for each event, whatever is in it, and the same keys every time."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from towerbus.ops.logs import journal_line, json_line, json_to


def emitted(format_, level="warn", **values):
    output = io.StringIO()
    log = Logger(namespace="towerbus.x", observer=json_to(output))
    getattr(log, level)(format_, **values)
    return output.getvalue()


def test_a_line_has_the_events_name_its_text_and_its_own_keys():
    line = json.loads(emitted("slow_consumer: closed with {waiting} bytes waiting", waiting=7, user="ada"))
    assert line.pop("time") > 0
    assert line == {
        "level": "warn",
        "event": "slow_consumer",
        "text": "slow_consumer: closed with 7 bytes waiting",
        "from": "towerbus.x",
        "waiting": 7,
        "user": "ada",
    }


def test_lines_that_are_not_ours_have_names_by_their_kind():
    assert json.loads(emitted("Starting factory {x!r}", x=1))["event"] == "twisted"
    assert json.loads(emitted("{filename}: {warning}", filename="x.py", warning="old"))["event"] == "python_warning"
    line = json.loads(json_line({"log_format": "Unhandled error in Deferred:", "log_failure": Failure(ValueError())}))
    assert line["event"] == "unhandled_error"


def test_debug_is_left_out():
    assert emitted("nothing", level="debug") == ""


def test_a_failure_comes_with_its_traceback():
    output = io.StringIO()
    log = Logger(observer=json_to(output))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.failure("session_failed", Failure())
    line = json.loads(output.getvalue())
    assert (line["event"], line["level"]) == ("session_failed", "critical")
    assert "ValueError: two\nlines" in line["traceback"]


def test_values_do_not_replace_the_stable_keys():
    line = json.loads(json_line({"log_format": "x: {event}", "event": 5, "level": 6, "log_level": LogLevel.info}))
    assert (line["event"], line["level"]) == ("x", "info")


def test_the_journal_gets_the_priority():
    assert journal_line({"log_format": "x", "log_level": LogLevel.error}).startswith("<3>{")
    assert journal_line({"log_format": "x"}).startswith("<6>{")


class Bad:
    def __str__(self):
        raise RuntimeError


VALUES = st.one_of(
    st.none(),
    st.text(),
    st.binary(),
    st.floats(),
    st.integers(),
    st.just(Bad()),
    st.lists(st.text()),
    st.just("\ud800"),
)


@given(st.dictionaries(st.text(max_size=9), VALUES), st.text(max_size=30))
def test_whatever_is_in_an_event_is_one_line_of_json(values, format_):
    line = json_line({**values, "log_format": format_, "log_level": LogLevel.info, "log_time": 1.0})
    assert line.count("\n") == 1
    assert json.loads(line)["level"] == "info"


@pytest.mark.parametrize("value", [Bad(), "\ud800", float("nan"), 2**70, {1: 2}, b"x"])
def test_values_that_json_does_not_know(value):
    assert json.loads(json_line({"log_format": "x", "value": value}))["event"] == "x"


def test_an_address_is_a_text_that_a_person_can_read():
    line = json.loads(json_line({"log_format": "listening", "address": UNIXAddress(b"/run/towerbus/emit.sock")}))
    assert line["address"] == "UNIXAddress('/run/towerbus/emit.sock')"
