"""The reloader: what `make dev` shows with real processes (tests/integration/test_dev.py) but for what nobody can time."""

import os

from towerbus.dev import reloader
from towerbus.dev.processes import Outcome


class Started:
    """Processes that were started at a moment; the real ones would have to be started just before a save."""

    def __init__(self, begun):
        self.restarts = 0
        self._begun = begun

    def begun(self):
        return self._begun

    def restart(self):
        self.restarts += 1
        return Outcome(("server",), (), ())


def test_a_save_between_the_start_of_the_processes_and_the_watching_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reloader, "bursts", lambda directories: iter(()))
    for name, time in ("old.py", 1000), ("new.py", 1002):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time, time))
    processes = Started(1001)
    reloader.run((tmp_path,), processes)
    assert processes.restarts == 1
    assert "reloader: changed: new.py" in capsys.readouterr().out


def test_a_save_during_the_restart_for_that_counts_too(tmp_path, monkeypatch, capsys):
    """Nobody watches yet then."""
    monkeypatch.setattr(reloader, "bursts", lambda directories: iter(()))
    for name, time in ("one.py", 1002), ("two.py", 1000):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time, time))

    class Slow(Started):
        def restart(self):
            os.utime(tmp_path / "two.py", (1003, 1003))
            return super().restart()

    processes = Slow(1001)
    reloader.run((tmp_path,), processes)
    assert processes.restarts == 2
    assert [line for line in capsys.readouterr().out.splitlines() if "changed" in line] == [
        "reloader: changed: one.py",
        "reloader: changed: two.py",
    ]


def test_nothing_is_restarted_where_nothing_was_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(reloader, "bursts", lambda directories: iter(()))
    (tmp_path / "old.py").write_text("")
    processes = Started(float("inf"))
    reloader.run((tmp_path,), processes)
    assert not processes.restarts
