"""examples/ansible: a real playbook, broadcast by a real server to a real client."""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import socket
import sys
import threading
import types
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.running import environment, finish, running_towerbus, start, wait_for
from websockets.sync.client import connect

from towerbus.errors import NotConfirmed, PeerError

EXAMPLE = Path(__file__).parents[2] / "examples" / "ansible"
SECONDS = 60

EVENT_KEYS = {
    *("id", "job", "created", "modified", "group_name", "url", "stdout", "counter", "uuid", "parent_uuid"),
    *("start_line", "end_line", "event", "event_data", "failed", "changed", "event_level", "play", "role", "task"),
}
STATUS_KEYS = {"unified_job_id", "status", "group_name", "type"}


def load(name):
    """Import a module of the example, which is no package."""
    spec = importlib.util.spec_from_file_location(f"example_ansible_{name}", EXAMPLE / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tower_events = load("tower_events")
emission = load("emission")


@pytest.fixture
def server(tmp_path):
    with running_towerbus(tmp_path) as running:
        yield running


def run_job(directory, *options, **variables):
    """Start the example, with a home and a place for temporary files of its own."""
    for name in ("home", "tmp", "work"):
        (directory / name).mkdir()
    return start(
        [sys.executable, str(EXAMPLE / "run_job.py"), *options],
        directory / "work",
        HOME=str(directory / "home"),
        TMPDIR=str(directory / "tmp"),
        **variables,
    )


def left_behind(directory):
    return [path for name in ("home", "tmp", "work") for path in (directory / name).iterdir()]


class Client:
    """A client that follows one job."""

    def __init__(self, socket, job):
        self.socket = socket
        self.job = job
        self.frames = []
        assert self.receive()["accept"] is True
        groups = {"jobs": ["status_changed", "summary"], "job_events": [job]}
        socket.send(json.dumps({"groups": groups}))
        assert set(self.receive()["groups_current"]) == {
            "jobs-status_changed",
            "jobs-summary",
            f"job_events-{job}",
        }

    def receive(self):
        return json.loads(self.socket.recv(timeout=SECONDS))

    def until(self, status):
        """Collect frames up to a status."""
        while not self.frames or self.frames[-1].get("status") != status:
            self.frames.append(self.receive())

    @property
    def statuses(self):
        return [frame["status"] for frame in self.frames if "status" in frame]

    def check(self, final):
        """Check all that holds for every job that came to an end: what is there, its order, its keys."""
        pending, running, *events, summary, status = self.frames
        assert [pending["status"], running["status"], status["status"]] == ["pending", "running", final]
        assert summary == {"group_name": "jobs", "unified_job_id": self.job, "final_counter": len(events)}
        assert [event["counter"] for event in events] == list(range(1, summary["final_counter"] + 1))
        for event in events:
            assert set(event) == EVENT_KEYS
            assert (event["job"], event["group_name"]) == (self.job, "job_events")
        assert len({event["id"] for event in events}) == len(events)
        for frame in (pending, running):
            assert set(frame) == STATUS_KEYS
        assert set(status) == STATUS_KEYS | {"finished"}
        assert {frame["unified_job_id"] for frame in (pending, running, status)} == {self.job}
        datetime.strptime(status["finished"], "%Y-%m-%dT%H:%M:%S.%f%z")
        return events


@pytest.fixture
def client(server):
    with connect(server.ws_url, proxy=None, open_timeout=SECONDS) as socket:
        yield Client(socket, 42)


def emitting(server, job=42):
    return ["--url", server.http_url, "--token", server.token, "--job-id", str(job)]


def test_client_sees_every_counter_in_order(server, client, tmp_path):
    process = run_job(tmp_path, *emitting(server))
    client.until("successful")
    code, output, errors = finish(process, SECONDS)
    assert code == 0, errors
    assert "PLAY RECAP" in output
    events = client.check("successful")
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("playbook_on_start", "playbook_on_stats")
    assert kinds.count("runner_item_on_ok") == 3
    assert any(event["changed"] for event in events)
    assert not any(event["failed"] for event in events), "an ignored failure is none"
    assert left_behind(tmp_path) == []


def test_client_sees_a_job_fail(server, client, tmp_path):
    process = run_job(tmp_path, *emitting(server), "--fail", "--quiet")
    client.until("failed")
    code, output, _ = finish(process, SECONDS)
    assert (code, output) == (1, "")
    failed = [event["event"] for event in client.check("failed") if event["failed"]]
    assert failed == ["runner_on_failed", "playbook_on_stats"]


def test_url_and_token_from_the_environment(server, client, tmp_path):
    playbook = tmp_path / "environment.yml"
    task = {"debug": {"msg": "{{ lookup('env', 'TOWERBUS_TOKEN') }}"}}
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    options = ["--job-id", "42", "--playbook", str(playbook)]
    process = run_job(tmp_path, *options, TOWERBUS_URL=server.http_url, TOWERBUS_TOKEN=server.token)
    client.until("successful")
    assert finish(process, SECONDS)[0] == 0
    events = client.check("successful")
    assert server.token not in json.dumps(events), "the playbook sees the token"


def test_interrupt_cancels_the_job_and_its_task(server, client, tmp_path):
    playbook = tmp_path / "long.yml"
    pid_file = tmp_path / "pid"
    task = {"command": {"argv": ["sh", "-c", f"echo $$ > {pid_file}; exec sleep 600"]}}
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    process = run_job(tmp_path, *emitting(server), "--playbook", str(playbook))
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip(), SECONDS, "the task")
    process.send_signal(signal.SIGINT)
    client.until("canceled")
    assert finish(process, SECONDS)[0] == 130
    client.check("canceled")
    stat = Path("/proc", pid_file.read_text().strip(), "stat")
    wait_for(lambda: not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z", 5, "the task's end")
    assert left_behind(tmp_path) == []


def test_playbook_runs_without_a_server_and_the_loss_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        code, output, errors = finish(run_job(tmp_path, "--url", url, "--token", "x", "--patience", "0.2"), SECONDS)
    assert code == 3
    assert "PLAY RECAP" in output
    assert "messages not confirmed" in errors


def test_refused_token_is_told(server, tmp_path):
    options = ["--url", server.http_url, "--token", "wrong", "--patience", "5"]
    code, output, errors = finish(run_job(tmp_path, *options), SECONDS)
    assert code == 3
    assert "PLAY RECAP" in output
    assert "messages not confirmed" in errors


def test_missing_playbook_is_a_usage_error(tmp_path):
    code, _, errors = finish(run_job(tmp_path, "--playbook", "nowhere.yml"), SECONDS)
    assert code == 2
    assert "nowhere.yml is not a file" in errors


class TestTowerEvents:
    def test_event(self):
        event = tower_events.job_event(
            7,
            {
                "counter": 3,
                "created": "2026-01-02T03:04:05.000006+00:00",
                "uuid": "u-3",
                "parent_uuid": "u-2",
                "stdout": "changed: [localhost]",
                "start_line": 4,
                "end_line": 5,
                "event": "runner_on_ok",
                "runner_ident": "left out",
                "event_data": {"play": "Deploy", "role": "web", "task": " Restart ", "res": {"changed": True}},
            },
        )
        assert event == {
            "id": 7_000_003,
            "job": 7,
            "created": "2026-01-02T03:04:05.000006+00:00",
            "modified": "2026-01-02T03:04:05.000006+00:00",
            "group_name": "job_events",
            "url": "/api/v2/job_events/7000003",
            "stdout": "changed: [localhost]",
            "counter": 3,
            "uuid": "u-3",
            "parent_uuid": "u-2",
            "start_line": 4,
            "end_line": 5,
            "event": "runner_on_ok",
            "event_data": {"play": "Deploy", "role": "web", "task": " Restart ", "res": {"changed": True}},
            "failed": False,
            "changed": True,
            "event_level": 3,
            "play": "Deploy",
            "role": "web",
            "task": "Restart",
        }

    @pytest.mark.parametrize(
        ("name", "level"),
        [
            ("playbook_on_start", 0),
            ("playbook_on_play_start", 1),
            ("playbook_on_stats", 1),
            ("playbook_on_task_start", 2),
            ("playbook_on_notify", 2),
            ("runner_on_start", 3),
            ("runner_item_on_ok", 3),
            ("verbose", 0),
            ("error", 0),
        ],
    )
    def test_level(self, name, level):
        assert tower_events.job_event(1, {"event": name})["event_level"] == level

    @pytest.mark.parametrize(
        ("name", "data", "failed", "changed"),
        [
            ("runner_on_failed", {}, True, False),
            ("runner_on_failed", {"ignore_errors": True}, False, False),
            ("runner_on_unreachable", {}, True, False),
            ("runner_on_ok", {"res": {"changed": True}}, False, True),
            ("playbook_on_stats", {"failures": {"a": 1}, "changed": {"a": 0}}, True, False),
            ("playbook_on_stats", {"dark": {"a": 1}, "changed": {"a": 2}}, True, True),
            ("playbook_on_stats", {"failures": {}, "dark": {}}, False, False),
        ],
    )
    def test_failed_and_changed(self, name, data, failed, changed):
        event = tower_events.job_event(1, {"event": name, "event_data": data})
        assert (event["failed"], event["changed"]) == (failed, changed)

    @pytest.mark.parametrize("status", ["pending", "running", "successful", "failed", "canceled", "error"])
    def test_status(self, status):
        payload = tower_events.job_status(7, status, finished=datetime(2026, 1, 2, 3, 4, 5, 6, UTC))
        told = {"finished": "2026-01-02T03:04:05.000006Z"} if status in {"successful", "failed", "canceled"} else {}
        assert payload == {"unified_job_id": 7, "status": status, "group_name": "jobs", "type": "job"} | told

    def test_status_with_template(self):
        assert tower_events.job_status(7, "pending", template=3)["unified_job_template_id"] == 3

    @pytest.mark.parametrize(
        "event",
        [
            {"event_data": {"res": {"stdout": "x" * 200_000}}},
            {"event_data": {"other": "x" * 200_000}},
            {"stdout": "\x1b\N{GRINNING FACE}" * 100_000, "event_data": {"task": "\x1b" * 100_000}},
            {"stdout": "half \ud83d", "event_data": {"task": "\ud83d"}},
            {"event_data": {"res": {"value": float("nan")}}},
        ],
    )
    def test_anything_can_be_sent(self, event):
        payload = tower_events.sendable(tower_events.job_event(1, event | {"counter": 9}), 65536)
        assert set(payload) == EVENT_KEYS
        assert payload["counter"] == 9
        assert tower_events.size(payload) <= 65536

    def test_what_fits_is_sent_as_it_is(self):
        payload = tower_events.job_event(1, {"event_data": {"res": {"a": 1}}})
        assert tower_events.sendable(payload, 65536) is payload

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "event": st.sampled_from(["playbook_on_stats", "runner_on_failed", "x"]),
                "event_data": st.none()
                | st.dictionaries(
                    st.sampled_from(["res", "failures", "dark", "changed", "play", "task", "role"]),
                    st.recursive(
                        st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)
                    ),
                ),
                "stdout": st.none() | st.text(),
                "created": st.none() | st.text(),
            },
        )
    )
    def test_every_event_has_all_keys(self, event):
        payload = tower_events.sendable(tower_events.job_event(1, event), 65536)
        assert set(payload) == EVENT_KEYS
        json.dumps(payload, allow_nan=False)


class TestJob:
    @pytest.fixture
    def run_job(self, monkeypatch):
        monkeypatch.syspath_prepend(EXAMPLE)
        yield load("run_job")
        for name in ("tower_events", "emission"):
            sys.modules.pop(name, None)

    def test_a_gap_between_counters_is_told(self, run_job, capsys):
        sent = []
        job = run_job.Job(42, sent.append)
        for counter in (1, 3):
            assert job.event_handler({"counter": counter, "uuid": f"u-{counter}"}) is False
        job.summary()
        assert sent[-1].payload["final_counter"] == 3
        assert run_job.report(job, "successful", emission.Outcome(5, 0, "")) == run_job.NOT_CONFIRMED
        assert "runner: 1" in capsys.readouterr().err

    def test_ids_are_those_of_one_run(self, run_job):
        sent = []
        for _ in range(2):
            job = run_job.Job(42, sent.append)
            job.status("pending")
            job.event_handler({"counter": 1, "uuid": "u"})
        assert len({each.id for each in sent}) == 4

    def test_a_runner_that_breaks_is_an_error(self, run_job, monkeypatch, capsys):
        def broken(**_):
            raise RuntimeError("no pty left")

        monkeypatch.setattr(run_job.ansible_runner, "run", broken)
        arguments = argparse.Namespace(playbook=run_job.SITE, fail=False, quiet=True)
        cancel = types.SimpleNamespace(asked=False, callback=lambda: False)
        assert run_job.play(run_job.Job(42, lambda _: None), cancel, arguments) == "error"
        assert "no pty left" in capsys.readouterr().err


def item(number, size=10):
    return emission.Item("g", "t", {"n": number}, str(number), size)


class TestEmission:
    def test_a_batch_not_confirmed_is_sent_again_with_the_same_ids_before_the_next(self):
        sent, complaints = [], []

        def emit_many(batch):
            sent.append([each.id for each in batch])
            if len(sent) < 3:
                raise NotConfirmed("away")

        sending = emission.Emission(emit_many, complaints.append)
        for number in range(1000):
            sending.put(item(number))
        assert sending.finish(SECONDS) == (1000, 0, "")
        assert sent[0] == sent[1] == sent[2]
        assert [id_ for batch in sent[2:] for id_ in batch] == [str(number) for number in range(1000)]
        assert len(complaints) == 1

    def test_batches_are_bounded_in_bytes(self):
        sizes = []
        gate = threading.Event()

        def emit_many(batch):
            gate.wait(SECONDS)
            sizes.append(sum(each.size for each in batch))

        sending = emission.Emission(emit_many, print)
        for number in range(10):
            sending.put(item(number, emission.BATCH_BYTES // 3))
        gate.set()
        assert sending.finish(SECONDS).confirmed == 10
        assert max(sizes) <= emission.BATCH_BYTES

    def test_the_end_does_not_wait_for_ever(self):
        def emit_many(batch):
            raise NotConfirmed("away")

        sending = emission.Emission(emit_many, lambda _: None)
        sending.put(item(1))
        sending.put(item(2))
        assert sending.finish(0.2) == (0, 2, "away")

    def test_putting_never_waits_and_what_found_no_room_is_counted(self):
        gate = threading.Event()
        sending = emission.Emission(lambda batch: gate.wait(SECONDS), print)
        room = emission.QUEUE_BYTES // 4
        for number in range(10):
            sending.put(item(number, room))
        gate.set()
        outcome = sending.finish(SECONDS)
        assert outcome.confirmed + outcome.unconfirmed == 10
        assert outcome.confirmed in {4, 5}
        assert "waiting" in outcome.reason

    def test_a_refusal_is_final(self):
        calls = []

        def emit_many(batch):
            calls.append(batch)
            raise PeerError("401: who are you?")

        sending = emission.Emission(emit_many, lambda _: None)
        sending.put(item(1))
        assert sending.finish(SECONDS) == (0, 1, "401: who are you?")
        assert len(calls) == 1


def test_environment_is_free_of_configuration(monkeypatch):
    monkeypatch.setenv("TOWERBUS_TOKEN", "x")
    assert "TOWERBUS_TOKEN" not in environment()
