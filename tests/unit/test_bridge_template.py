import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.bridge.message import Message
from towerbus.bridge.template import MissingError, Path, Template

MESSAGE = Message(
    b"{}",
    id="m1",
    group="g",
    type="t",
    routing_key="runner.events.7",
    headers={"tenant": "a", "x.y": "dotted", "b": b"\xff"},
)
PAYLOAD = {"job": 42, "deep": {"list": [{"name": "first"}]}, "yes": True, "none": None, "text": ""}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("job_events", "job_events"),
        ("{payload.job}", "42"),
        ("{payload.deep.list.0.name}-{id}", "first-m1"),
        ("{headers.tenant}_{group}.{type}", "a_g.t"),
        ("{headers.x.y}", "dotted"),
        ("{headers.b}", "\ufffd"),
        ("{routing_key}", "runner.events.7"),
        ("{routing_key.2}", "7"),
        ("{{literally}}", "{literally}"),
        ("{payload.text}", ""),
    ],
)
def test_filled(text, filled):
    assert Template(text).fill(MESSAGE, PAYLOAD) == filled


@pytest.mark.parametrize(
    "text",
    [
        "{payload.nothing}",
        "{payload.job.deeper}",
        "{payload.deep.list.9}",
        "{payload.deep}",
        "{payload.yes}",
        "{payload.none}",
        "{headers.nothing}",
        "{routing_key.9}",
        "{payload.deep.list.-1}",
        "{payload}",
    ],
)
def test_what_a_message_lacks_is_named(text):
    with pytest.raises(MissingError) as caught:
        Template(text).fill(MESSAGE, PAYLOAD)
    assert text.strip("{}") in str(caught.value)


def test_a_message_without_group_lacks_it():
    with pytest.raises(MissingError):
        Template("{group}").fill(Message(b"{}"), {})


@pytest.mark.parametrize(
    "text", ["{", "{}", "{nothing}", "{payload.}", "{id.x}", "{headers}", "{payload.a!r}", "{payload[0]}"]
)
def test_what_is_no_template_is_refused_with_what_is_wanted(text):
    with pytest.raises(ValueError, match="places are"):
        Template(text)


def test_no_attribute_of_python_is_reached():
    with pytest.raises(MissingError):
        Template("{payload.__class__}").fill(MESSAGE, PAYLOAD)


@given(st.text())
def test_any_text_is_a_template_or_is_refused(text):
    try:
        Template(text)
    except ValueError:
        return


@given(st.text().filter(bool))
def test_any_path_is_found_or_missing(text):
    try:
        Path("payload." + text).find(MESSAGE, PAYLOAD)
    except (ValueError, MissingError):
        return
