import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.bridge.mapping import Mapping, MappingOptions, stable
from towerbus.bridge.message import Message
from towerbus.errors import PeerError


def mapped(message, limit=1024 * 1024, **options):
    return Mapping(msgspec.convert(options, MappingOptions), limit).map(message)


def test_without_a_table_the_routing_key_decides_and_the_body_stays_byte_for_byte():
    body = b'{ "n" : 1.0 }'
    (event,) = mapped(Message(body, id="m1", routing_key="jobs.status.changed", time=7.5))
    assert (event.topic, event.payload, event.id, event.time) == (("jobs", "status.changed"), body, "m1", 7.5)


def test_what_the_source_says_comes_before_the_routing_key():
    (event,) = mapped(Message(b'{"n":1}', group="a", type="b", routing_key="c.d"))
    assert event.topic == ("a", "b")


def test_templates_come_before_both():
    message = Message(b'{"job":42}', id="m", routing_key="c.d", headers={"tenant": "x"})
    (event,) = mapped(message, group="{headers.tenant}_events", type="{payload.job}", id="{id}-{payload.job}")
    assert (event.topic, event.id) == (("x_events", "42"), "m-42")
    assert mapped(message, type="{payload.job}")[0].topic == ("c", "42")


def test_a_part_of_the_body_is_selected_and_renamed():
    message = Message(b'{"data":{"a":1,"b":2,"c":{"d":3}}}', routing_key="g.t")
    (event,) = mapped(message, payload="payload.data", select=["c", "a"], rename={"a": "x"})
    assert event.payload == b'{"c":{"d":3},"x":1}'


@pytest.mark.parametrize(
    ("condition", "passes"),
    [
        ({"in": ["42"]}, True),
        ({"in": ["43"]}, False),
        ({"not_in": ["42"]}, False),
        ({"not_in": ["43"]}, True),
        ({"matches": "4."}, True),
        ({"matches": "4"}, False),
        ({"in": ["42"], "not_in": ["42"]}, False),
    ],
)
def test_filters(condition, passes):
    found = mapped(Message(b'{"n":42}', routing_key="g.t"), filter=[{"value": "{payload.n}", **condition}])
    assert bool(found) is passes


def test_what_a_message_lacks_is_empty_for_a_filter():
    assert mapped(Message(b'{"n":1}', routing_key="g.t"), filter=[{"value": "{headers.x}", "in": [""]}])
    assert not mapped(Message(b'{"n":1}', routing_key="g.t"), filter=[{"value": "{headers.x}", "in": ["y"]}])


@pytest.mark.parametrize(
    ("message", "options", "words"),
    [
        (Message(b"{}", routing_key="g.t"), {}, "empty object"),
        (Message(b"[1]", routing_key="g.t"), {}, "not a JSON object"),
        (Message(b"\xff", routing_key="g.t"), {"type": "{payload.x}"}, "not JSON"),
        (Message(b'{"n":1}'), {}, "nothing says its group"),
        (Message(b'{"n":1}', routing_key="nodot"), {}, "group.type"),
        (Message(b'{"n":1}', routing_key="_x.t"), {}, "internal"),
        (Message(b'{"n":1}', routing_key="g.t"), {"type": "{payload.x}"}, "payload.x"),
        (Message(b'{"n":1}', routing_key="g.t"), {"payload": "payload.n"}, "not a JSON object"),
        (Message(b'{"n":1}', routing_key="g.t", time=1e15), {}, "milliseconds"),
    ],
)
def test_what_cannot_be_mapped_says_why(message, options, words):
    with pytest.raises(PeerError, match=words):
        mapped(message, **options)


def test_a_foreign_id_is_kept_where_it_may_be_and_hashed_where_not():
    assert stable("m1") == "m1"
    for odd in ("with space", "x" * 200, "\u00fc", "\ud800", ""):
        assert stable(odd) == stable(odd)
        assert len(stable(odd)) == 64


@given(st.binary(max_size=60), st.text(max_size=20), st.sampled_from(["plain", "runner"]))
def test_any_message_is_mapped_or_refused(body, key, shape):
    try:
        mapped(Message(body, id=key, routing_key=key), shape=shape)
    except PeerError:
        return


RAW = {
    "uuid": "u1",
    "counter": 3,
    "stdout": "ok: [a]",
    "start_line": 1,
    "end_line": 2,
    "event": "runner_on_ok",
    "event_data": {"play": "p", "task": " t ", "res": {"changed": True}},
    "created": "2026-01-01T00:00:00",
    "parent_uuid": "u0",
    "pid": 7,
}


def runner(raw, limit=1024 * 1024, **options):
    (event,) = mapped(Message(json.dumps(raw).encode(), id="delivery"), limit, shape="runner", **options)
    return event, json.loads(event.payload)


@pytest.mark.parametrize(
    ("key", "group", "name"),
    [
        ("job_id", "job_events", "job"),
        ("ad_hoc_command_id", "ad_hoc_command_events", "ad_hoc_command"),
        ("project_update_id", "project_update_events", "project_update"),
        ("inventory_update_id", "inventory_update_events", "inventory_update"),
        ("system_job_id", "system_job_events", "system_job"),
    ],
)
def test_a_runner_event_is_what_tower_makes_of_it(key, group, name):
    event, payload = runner(RAW | {key: 42})
    assert event.topic == (group, "42")
    assert event.id == f"{group}-42-u1-3", "the same, whatever delivery it came with"
    linked = group in {"job_events", "ad_hoc_command_events"}
    assert payload == {
        "id": 42_000_003,
        name: 42,
        "created": "2026-01-01T00:00:00",
        "modified": "2026-01-01T00:00:00",
        "group_name": group,
        "url": f"/api/v2/{group}/42000003" if linked else "",
        "stdout": "ok: [a]",
        "counter": 3,
        "uuid": "u1",
        "parent_uuid": "u0",
        "start_line": 1,
        "end_line": 2,
        "event": "runner_on_ok",
        "event_data": RAW["event_data"],
        "failed": False,
        "changed": True,
        "event_level": 3,
        "play": "p",
        "role": "",
        "task": "t",
    }


def test_the_job_comes_from_a_template_or_the_runners_ident():
    assert runner(RAW, type="job-{payload.pid}")[0].topic == ("job_events", "job-7")
    event, payload = runner(RAW | {"runner_ident": "abc"})
    assert (event.topic, payload["job"]) == (("job_events", "abc"), "abc")


def test_the_end_of_a_job_becomes_its_summary():
    event, payload = runner({"event": "EOF", "final_counter": 9, "job_id": 42})
    assert event.topic == ("jobs", "summary")
    assert payload == {"group_name": "jobs", "unified_job_id": 42, "final_counter": 9}


@pytest.mark.parametrize(
    "raw", [{"event": "x", "uuid": "u"}, {"job_id": 1}, {"job_id": True}, RAW | {"job_id": 1, "counter": "x"}]
)
def test_what_is_no_runner_event_is_refused(raw):
    with pytest.raises(PeerError):
        runner(raw)


@pytest.mark.parametrize(
    "large",
    [
        {"event_data": {"res": {"stdout": "x" * 200_000}}},
        {"event_data": {"o": "x" * 200_000}, "stdout": "\x1b" * 200_000},
    ],
)
def test_a_large_runner_event_is_cut_and_never_refused(large):
    event, payload = runner(RAW | {"job_id": 42} | large, 65536)
    assert len(event.payload) <= 65536
    assert payload["counter"] == 3


def test_a_job_of_more_digits_than_python_takes_is_refused_as_any_other():
    raw = {"event": "runner_on_ok", "uuid": "u", "counter": 1, "job_id": "9" * 5000}
    with pytest.raises(PeerError):
        mapped(Message(json.dumps(raw).encode()), shape="runner")
