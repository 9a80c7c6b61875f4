"""What bench/ has measured is kept in a file, to which further runs add."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import ANY

import pytest

BENCH = Path(__file__).parents[2] / "bench"
NATS = {"nats": {"nats-server": "2.9.10"}}


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCH)])


def results(date="2026-12-01T10:00:00Z", commit="c8e5d93abcde", machine=None, versions=None, **sizes):
    from measure import Load
    from origin import Origin
    from results import Results

    origin = Origin([date], commit, machine or {"cpu": "EPYC", "cpus": 2}, versions or {})
    return Results(replace(Load(100, 40, 50, 0.5, 200, 300), **sizes), origin)


def figures(*faults, **values):
    from measure import Figures

    return Figures(values, list(faults))


def test_a_run_adds_its_loads_to_those_of_the_one_before(tmp_path):
    import goals
    import report

    file = tmp_path / "results.json"
    first = results()
    for number, ours in enumerate((4.0, 6.0)):
        found = {"towerbus": figures(w1_us=ours), "nats": figures("late", w1_us=ours * 3)}
        first.add(number, "topic", found, 2.5)
    first.write(file, [])

    second = results()
    second.add_file(file)
    second.add(0, "deflate", {"towerbus": figures(deflate_w1_us=5.0), "sendmessage": figures(deflate_w1_us=60.0)}, 1.5)
    second.add(0, "topic", {"towerbus": figures(w1_us=5.0), "nats": figures(w1_us=5.0)}, 2.0)
    second.write(file, [])

    third = results()
    third.add_file(file)
    assert third.seconds == {"topic": 7.0, "deflate": 1.5}
    assert third.faults == ["round 1 nats: topic: late", "round 2 nats: topic: late"]
    assert report.ratio(third.rounds, "nats", "towerbus", "w1_us") == 2.0
    assert "autobahn sendMessage" in report.table(third.rounds, "deflate")
    judged = {each.text.partition(",")[0]: each.met for each in goals.judged(third.rounds)}
    assert judged["towerbus: deflate_w1_us 1/12 of sendmessage's"] is True
    assert judged["towerbus: w1_us 1/1.5 of nats's"] is False


def test_the_summary_has_medians_ratios_and_goals(tmp_path, capsys):
    import summary

    file, measured = tmp_path / "results.json", results()
    for number, ours in enumerate((4.0, 6.0)):
        found = {"towerbus": figures(w1_us=ours, idle_kb=3.5), "nats": figures(w1_us=ours * 3 - number)}
        measured.add(number, "topic", found, 2.5)
    measured.write(file, [])
    assert summary.main([str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| towerbus, embedded log | 5 |  |  |  |  |  |  |  |" in lines
    assert "| NATS websocket | 14.5 (2.92x) |  |  |  |  |  |  |  |" in lines
    assert "| towerbus, embedded log | 3.5 |  |  |  |  |  |  |  |" in lines
    assert "1 of 2 goals are met. The others:" in lines
    assert "| towerbus | idle_kb | 3.50 | 3 |" in lines


def test_what_the_broker_costs_is_told_apart(tmp_path, capsys):
    import report
    import summary

    file, measured = tmp_path / "results.json", results()
    for number, broker in enumerate((1.0, 2.0)):
        found = figures(w1_us=9.0, w1_within_broker_us=broker, w1_within_worker_us=0.4, day_within_broker_us=6.0)
        measured.add(number, "topic", {"towerbus-rabbitmq": found}, 1.0)
    measured.write(file, [])
    assert summary.main([str(file)]) == 0
    assert "| of it the broker | 1.5 |  |  | 6 |  |  |  |  |" in capsys.readouterr().out
    told = report.ranges(measured.rounds, "topic").splitlines()
    assert "  towerbus, RabbitMQ: w1, of it broker 1.50 us" in told
    assert "  towerbus, RabbitMQ: w1, of it worker 0.40 us" in told


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"clients": 101}, "another load: clients 100 (now 101)"),
        ({"machine": {"cpu": "EPYC", "cpus": 64}}, "another machine: cpus 2 (now 64)"),
        ({"commit": "c8e5d93abcde+changes"}, "another commit: commit c8e5d93abcde (now c8e5d93abcde+changes)"),
        ({"versions": {"nats": {"nats-server": "2.10.1"}}}, "versions of nats: nats-server 2.9.10 (now 2.10.1)"),
        ({"versions": {"nats": {}}}, "versions of nats: nats-server 2.9.10 (now none)"),
    ],
)
def test_what_was_measured_with_other_sizes_or_elsewhere_is_not_added_to(tmp_path, other, said):
    from results import Refused

    file, first = tmp_path / "results.json", results(versions=NATS)
    first.add(0, "topic", {"nats": figures(w1_us=5.0)}, 1.0)
    first.write(file, [])
    with pytest.raises(Refused) as refused:
        results(**other).add_file(file)
    assert said in str(refused.value)
    assert str(file) in str(refused.value)
    assert str(refused.value).endswith("measure without --add, or into another file (--json)")
    assert "\n" not in str(refused.value)


def test_each_run_has_its_date_and_each_server_that_was_measured_its_versions(tmp_path):
    file, floor = tmp_path / "results.json", {"floor": {"compiler": "cc 12.2.0", "flags": "-O2"}}
    first = results(versions={**NATS, "ws": {"ws": "8.23.0"}})
    first.add(0, "topic", {"nats": figures(w1_us=5.0)}, 1.0)
    first.write(file, [])
    # What was not measured after all, for the run was broken off, may have other versions when it is.
    second = results(date="2026-12-02T11:00:00Z", versions={**floor, "ws": {"ws": "9.0.0"}})
    second.add_file(file)
    second.add(0, "pace", {"floor": figures(pace_p99_ms=5.0), "ws": figures(pace_p99_ms=6.0)}, 1.0)
    second.write(file, [])
    kept = json.loads(file.read_text())
    assert kept["dates"] == ["2026-12-01T10:00:00Z", "2026-12-02T11:00:00Z"]
    assert kept["commit"] == "c8e5d93abcde"
    assert kept["machine"] == {"cpu": "EPYC", "cpus": 2}
    assert kept["versions"] == {**NATS, **floor, "ws": {"ws": "9.0.0"}}


@pytest.fixture
def older(tmp_path):
    """A file from before it was recorded where its figures come from."""
    file = tmp_path / "older.json"
    kept = json.loads((BENCH / "measured" / "2026-12-01.json").read_bytes())
    for key in ("dates", "commit", "versions"):
        del kept[key]
    del kept["machine"]["cpu"]
    file.write_text(json.dumps(kept))
    return file


def test_a_file_from_before_versions_were_recorded_is_not_added_to(older):
    from results import Refused

    with pytest.raises(Refused, match=r"older\.json is of an older .* did not record dates, commit, versions"):
        results().add_file(older)


def test_the_summary_says_where_the_figures_come_from(tmp_path, capsys):
    import run
    import summary

    file = tmp_path / "results.json"
    machine = {"cpu": "AMD EPYC", "cpus": 2, "kernel": "6.1", "python": "3.11.7", "send_loop": "C"}
    versions = {"gone": {"thing": "0.1"}, **NATS, "towerbus": {"towerbus": "0.1.0", "Twisted": "26.10.0"}}
    measured = results(machine=machine, versions=versions)
    measured.add(0, "topic", {"towerbus": figures(w1_us=4.0), "nats": figures(w1_us=9.0), "gone": figures()}, 2.5)
    measured.write(file, [])
    again = results(date="2026-12-02T11:00:00Z", machine=machine)
    again.add_file(file)
    again.write(file, [])
    assert summary.main([str(file)]) == 0
    when = "date 2026-12-01T10:00:00Z, added to 2026-12-02T11:00:00Z; commit c8e5d93abcde"
    where = "2 CPUs (model AMD EPYC), Linux 6.1, Python 3.11.7, our send loop in C"
    consisting = [
        "- towerbus, embedded log: towerbus 0.1.0, Twisted 26.10.0",
        "- NATS websocket: nats-server 2.9.10",
        "- gone: thing 0.1",
    ]
    assert capsys.readouterr().out.splitlines()[-5:] == [f"Measured: {when}; {where}.", "", *consisting]
    run.show(again)
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].endswith(when)
    assert shown[2:6] == [where, *consisting]


def test_a_summary_takes_no_towerbus(tmp_path):
    code = "import sys; sys.modules['towerbus'] = None; import summary; sys.exit(summary.main(sys.argv[1:]))"
    file = BENCH / "measured" / "2026-12-01.json"
    done = subprocess.run([sys.executable, "-c", code, file], cwd=BENCH, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| towerbus, embedded log |" in done.stdout


def test_the_summary_says_what_an_older_file_has_not_recorded(older, capsys):
    import summary

    assert summary.main([str(older)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith(
        "Measured: date not recorded; commit not recorded; 2 CPUs (model not recorded), Linux 6.18"
    )
    assert lines[-1] == "- versions not recorded"


def test_the_tables_of_the_docs_are_those_of_the_file_that_they_name(capsys):
    import summary

    section = (BENCH.parent / "docs" / "benchmarks.md").read_text().partition("Not comparable")[0]
    [name] = set(re.findall(r"bench/measured/(\S+\.json)", section))
    assert summary.main([str(BENCH / "measured" / name)]) == 0
    printed = capsys.readouterr().out
    costs, others, goals, _, measured, versions = printed.split("\n\n")
    met = re.match(r"\d+ of \d+", goals)[0]
    for part in (costs, others, versions.strip(), f" {met} are met.", re.search(r"commit \w+", measured)[0]):
        assert part in section


BROKEN = {
    "cut off": b'{"load": {"clients": 1',
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "very deep": b"[" * 100_000,
    "a list": b"[]",
    "foreign": b'{"name": "x", "rounds": []}',
    "other rounds": b'{"load": {}, "machine": {}, "seconds": {}, "rounds": [3], "faults": []}',
    "no figures": b'{"load": {}, "machine": {}, "seconds": {}, "rounds": [{"nats": {"w1_us": "5"}}], "faults": []}',
    "no seconds": b'{"load": {}, "machine": {}, "seconds": {"topic": []}, "rounds": [], "faults": []}',
    "other dates": b'{"load": {}, "machine": {}, "seconds": {}, "rounds": [], "faults": [], "dates": [1]}',
    "other commit": b'{"load": {}, "machine": {}, "seconds": {}, "rounds": [], "faults": [], "commit": 1}',
    "other versions": b'{"load": {}, "machine": {}, "seconds": {}, "rounds": [], "faults": [], "versions": {"nats": 1}}',
}


def refusal(captured, program, file):
    """The one line that names the file, and nothing else."""
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"{program}: ")
    assert str(file) in captured.err
    return captured.err


def run_of_nothing(*argv):
    """What a run says that has nothing to measure, where its files are well: the floor is in no load but two."""
    import run

    return run.main(["--quick", "--peers", "floor", "--load", "storm", *map(str, argv)])


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_result_is_neither_summed_up_nor_added_to(tmp_path, capsys, content):
    import summary

    file = tmp_path / "results.json"
    file.write_bytes(content)
    assert summary.main([str(file)]) == 2
    refusal(capsys.readouterr(), "bench/summary.py", file)
    assert run_of_nothing("--add", "--json", file, "--plot", tmp_path / "plot.svg") == 2
    refusal(capsys.readouterr(), "bench/run.py", file)
    assert file.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_the_summary_wants_one_file_that_can_be_read(tmp_path, capsys, monkeypatch):
    import summary

    monkeypatch.setattr(summary, "HERE", tmp_path)
    assert summary.main([]) == 2
    assert "there is no" in refusal(capsys.readouterr(), "bench/summary.py", tmp_path / "results.json")
    assert summary.main([str(tmp_path)]) == 2
    assert "Is a directory" in refusal(capsys.readouterr(), "bench/summary.py", tmp_path)
    assert summary.main(["one.json", "two.json"]) == 2
    assert "takes one file" in refusal(capsys.readouterr(), "bench/summary.py", "two.json")
    with pytest.raises(SystemExit) as ended:
        summary.main(["--help"])
    assert ended.value.code == 0
    assert "bench/measured/" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_files_that_can_not_be_written_are_found_before_anything_is_measured(tmp_path, capsys, option):
    files = {"--json": tmp_path / "results.json", "--plot": tmp_path / "results.svg"}
    (tmp_path / "file").touch()
    for bad in (tmp_path / "missing" / "x", tmp_path, tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        words = [word for pair in (files | {option: bad}).items() for word in pair]
        assert run_of_nothing(*words) == 2
        said = refusal(capsys.readouterr(), "bench/run.py", bad)
        assert said.endswith(f"name another file ({option})\n")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_one_file_is_not_for_both(tmp_path, capsys):
    assert run_of_nothing("--json", tmp_path / "x", "--plot", tmp_path / "x") == 2
    assert "name two files" in refusal(capsys.readouterr(), "bench/run.py", tmp_path / "x")


def test_nothing_to_measure_changes_no_file(tmp_path, capsys):
    file, plot = tmp_path / "results.json", tmp_path / "results.svg"
    file.write_text("before")
    assert run_of_nothing("--json", file, "--plot", plot) == 2
    assert "nothing to measure" in capsys.readouterr().err
    assert file.read_text() == "before"
    assert not plot.exists()


def test_adding_to_nothing_begins_a_file(tmp_path, capsys):
    file = tmp_path / "results.json"
    assert run_of_nothing("--add", "--json", file, "--plot", tmp_path / "results.svg") == 2
    assert capsys.readouterr().err.splitlines()[0] == f"there is no {file} to add to: this run begins it"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.skipif(not Path("/usr/include/zlib.h").exists(), reason="no zlib1g-dev")
def test_a_run_records_what_it_measured(tmp_path, capsys, monkeypatch):
    import generator
    import origin
    import run

    file, plot = tmp_path / "results.json", tmp_path / "results.svg"
    sizes = ["--clients", 10, "--events", 10, "--idle", 0, "--rounds", 1, "--seconds", 1]
    words = [*map(str, [*sizes, "--peers", "floor", "--json", file, "--plot", plot])]
    before = datetime.now(UTC).replace(microsecond=0)
    assert run.main(["--load", "topic", *words]) == 0
    assert run.main(["--load", "pace", "--add", *words]) == 0
    kept = json.loads(file.read_text())
    first, second = (datetime.fromisoformat(date) for date in kept["dates"])
    assert before <= first <= second <= datetime.now(UTC)
    assert kept["commit"] == origin.commit()
    assert kept["machine"] == origin.machine()
    assert kept["versions"] == {"floor": {"compiler": ANY, "flags": " ".join(generator.FLAGS)}}
    assert kept["versions"]["floor"]["compiler"] != "not known"
    assert kept["seconds"].keys() == {"topic", "pace"}
    assert all(date in plot.read_text() for date in kept["dates"])
    assert f"added to {kept['dates'][1]}; commit {kept['commit']}" in capsys.readouterr().out

    monkeypatch.setattr("peers.floor.FLAGS", ("-O3",))
    content = file.read_bytes()
    assert run.main(["--load", "pace", "--add", *words]) == 2
    assert "(now -O3)" in refusal(capsys.readouterr(), "bench/run.py", file)
    assert file.read_bytes() == content


def test_the_commit_of_a_checkout_is_told_and_whether_it_has_changes(tmp_path, monkeypatch):
    import origin

    def git(*words):
        name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    monkeypatch.setattr(origin, "TOP", tmp_path)
    assert origin.commit() == f"none (towerbus {origin.of_ours('towerbus')['towerbus']})"
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")[:12]
    (tmp_path / "untracked").touch()
    assert origin.commit() == head
    (tmp_path / "file").write_text("22")
    assert origin.commit() == f"{head}+changes"
    (tmp_path / "inside").mkdir()
    monkeypatch.setattr(origin, "TOP", tmp_path / "inside")
    assert origin.commit().startswith("none (towerbus ")


def test_the_cpu_is_told_by_its_model(tmp_path, monkeypatch):
    import origin

    monkeypatch.setattr(origin, "CPUINFO", tmp_path / "cpuinfo")
    assert origin.cpu() == "not known"
    origin.CPUINFO.write_text("processor\t: 0\n")
    assert origin.cpu() == "not known"
    origin.CPUINFO.write_text("processor\t: 0\nmodel name\t: A CPU @ 2: fast\nmodel name\t: another\n")
    assert origin.machine()["cpu"] == "A CPU @ 2: fast"


def test_less_than_nothing_meets_no_goal():
    import goals

    ran = results()
    ran.add(0, "topic", {"towerbus": figures(idle_kb=-3.0), "nats": figures(idle_kb=20.0)}, 1.0)
    assert [each.met for each in goals.judged(ran.rounds)] == [False, False]


def test_the_plot_has_a_panel_for_each_load_that_was_measured():
    import plot

    ran = results()
    ran.add(0, "storm", {"towerbus": figures(storm_bare_client_us=1480.0, storm_recovered_us=0.7)}, 1.0)
    dates = ", ".join(["2026-12-01T10:00:00Z"] * 9)
    drawn = plot.svg(ran.rounds, f"{dates}\nthe machine")
    above = re.findall(r'<text x="8" y="(\d+)">([^<]*)', drawn)
    assert [int(y) for y, _ in above] == [16, 32, 48, 64]
    assert " ".join(line for _, line in above[:2]) == dates
    assert above[2][1] == "the machine"
    assert drawn.count("shorter is better") == 2
    assert ">1,480<" in drawn
