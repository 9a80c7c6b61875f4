"""Servers on one port are restarted one after the other, under load: nobody misses or repeats an event."""

import pytest
from support.ports import Ports
from support.rolling import check, rolling_restart

pytestmark = pytest.mark.long

DRAIN = 2.0


@pytest.fixture
def port():
    ports = Ports()
    yield ports.numbers[0]
    ports.release()


def test_a_rolling_restart_loses_and_repeats_nothing(tmp_path, vhost, port):
    report, emitted, before, after = rolling_restart(tmp_path, vhost, port, 60, DRAIN)
    check(report, emitted, before, after, 60, DRAIN)
