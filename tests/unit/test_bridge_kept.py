"""The position of a sink, on the disk."""

import os
import stat

from towerbus.bridge.kept import KeptPosition
from towerbus.positions import Position


def test_the_name_is_synchronised_too_or_a_power_cut_takes_it_back(tmp_path, monkeypatch):
    seen = []
    real = os.fsync

    def noticed(number):
        seen.append((stat.S_ISDIR(os.fstat(number).st_mode), (tmp_path / "position").exists()))
        real(number)

    monkeypatch.setattr(os, "fsync", noticed)
    kept = KeptPosition(tmp_path, None, "s")
    kept._write(str(Position("e", 1, 2, 3)))
    assert seen == [(False, False), (True, True)]
    assert kept.load() == Position("e", 1, 2, 3)
    kept.close()
