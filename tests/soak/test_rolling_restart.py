"""A thousand clients, a hundred events each second, and both servers restarted."""

import pytest
from support.ports import Ports
from support.rolling import check, rolling_restart

DRAIN = 5.0


@pytest.fixture
def port():
    ports = Ports()
    yield ports.numbers[0]
    ports.release()


@pytest.mark.soak
def test_a_thousand_clients_do_not_notice_a_rolling_restart(tmp_path, vhost, port):
    report, emitted, before, after = rolling_restart(tmp_path, vhost, port, 1000, DRAIN)
    away = sorted(report["away"])
    print(f"{emitted} events, {len(away)} came back; away for {away[len(away) // 2]:.2f} s (half), {away[-1]:.2f} s (all);"
          f" clients {before} before, {after} after; {report['counts']}", flush=True)  # fmt: skip
    check(report, emitted, before, after, 1000, DRAIN)
