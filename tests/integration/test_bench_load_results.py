"""What bench/ has measured is kept in a file, to which further runs add."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2] / "bench")])


def results(**sizes):
    from measure import Load
    from results import Results

    return Results(replace(Load(100, 40, 50, 0.5, 200, 300), **sizes), {"cpus": 2})


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


def test_what_was_measured_with_other_sizes_or_elsewhere_is_not_added_to(tmp_path):
    file = tmp_path / "results.json"
    results().write(file, [])
    with pytest.raises(ValueError, match="another load"):
        results(clients=101).add_file(file)
    elsewhere = results()
    elsewhere.machine = {"cpus": 64}
    with pytest.raises(ValueError, match="another machine"):
        elsewhere.add_file(file)


def test_less_than_nothing_meets_no_goal():
    import goals

    ran = results()
    ran.add(0, "topic", {"towerbus": figures(idle_kb=-3.0), "nats": figures(idle_kb=20.0)}, 1.0)
    assert [each.met for each in goals.judged(ran.rounds)] == [False, False]


def test_the_plot_has_a_panel_for_each_load_that_was_measured():
    import plot

    ran = results()
    ran.add(0, "storm", {"towerbus": figures(storm_bare_client_us=1480.0, storm_recovered_us=0.7)}, 1.0)
    drawn = plot.svg(ran.rounds, "about")
    assert drawn.count("shorter is better") == 2
    assert ">1,480<" in drawn
