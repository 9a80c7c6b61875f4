"""`twistd towerbus-worker`: a bus that a worker can't have is named before anything starts."""

import pytest
from twisted.internet.task import Clock

from towerbus.amqp.worker.service import worker
from towerbus.config import settings
from towerbus.errors import ConfigError
from towerbus.worker_tap import Options

WRONG = {
    "memory:": ["--bus", "memory:", "amqp://", "twistd towerbus"],
    "sqlite:/tmp/x": ["--bus", "sqlite:/tmp/x", "amqp://"],
    "http://localhost": ["--bus", "http", "amqp://"],
    "amqp://localhost/a/b": ["--bus", "virtual host", "%2F"],
    "amqp://localhost/?prefix=a/b": ["--bus", "prefix"],
}


@pytest.mark.parametrize("bus", WRONG)
def test_a_wrong_bus_is_named(bus):
    with pytest.raises(ConfigError) as caught:
        worker(settings({"bus": bus}, {}), Clock())
    for part in WRONG[bus]:
        assert part in str(caught.value)


def test_the_settings_are_carried_out():
    given = {"bus": "amqp://localhost/?prefix=x", "record_pause": "0.5", "max_payload": "100", "log_max_age": "60"}
    ordering, *_ = worker(settings(given, {}), Clock())
    setup = ordering._setup
    assert (setup.names.log, setup.record_pause, setup.max_payload, setup.limits.log_max_age) == ("x.log", 0.5, 100, 60)


def test_its_options_are_those_of_a_worker():
    options = Options()
    options.parseOptions(["--bus", "amqp://localhost", "--record-pause", "0.01"])
    assert options.settings.record_pause == 0.01
    assert "listen" not in options
