"""The hub: the parts between the log and the clients fit together."""

import pytest
from support.deep_log import DeepLog
from support.wires import Table
from twisted.internet import reactor

from towerbus.config import settings
from towerbus.errors import ConfigError
from towerbus.event import event
from towerbus.hub import catchup_limits, hub
from towerbus.interest import NOTHING, Interest
from towerbus.topics import Topic


class Member:
    got = b""

    def write(self, data):
        self.got += data


@pytest.fixture
def log():
    return DeepLog()


def test_each_dialect_has_a_lane_of_its_own_that_follows_the_log(log):
    made = hub(settings({}, {}), reactor, Table(), log)
    assert list(made.factory.spoken) == ["tower", "towerbus.v1"]
    jobs = Interest(frozenset({Topic("jobs", "x")}))
    got = {}
    for name, spoken in made.factory.spoken.items():
        got[name] = Member()
        made.fanout.subscribe(spoken.lane, got[name], jobs, NOTHING)
    made.fanout._broadcast = lambda members, data: [member.write(data) for member in members]
    log.append([event("jobs", "x", b'{"n":1}', id="e")])
    assert made.fanout.flush() == log.tail.end
    assert got["tower"].got == b'\x81\x07{"n":1}'
    assert b'"position":"%s"' % str(log.tail.end).encode() in got["towerbus.v1"].got
    for call in reactor.getDelayedCalls():
        if call.func == made.fanout._run:
            call.cancel()


def test_it_knows_its_position_before_the_first_event(log):
    log.append([event("jobs", "x", b'{"n":1}')])
    made = hub(settings({}, {}), reactor, Table(), log)
    assert made.fanout.position == log.tail.end


def test_what_the_log_has_lost_reaches_the_factory(log):
    made = hub(settings({}, {}), reactor, Table(), log)
    lost = []
    made.factory.catchup.look_again = lambda: lost.append(made.fanout.position)
    log.lose([event("jobs", "x", b'{"n":1}')])
    assert lost == [log.tail.end]


def test_what_was_missed_fills_half_of_an_outbox_at_the_most():
    for outbox in (1024, 65536, 2**20):
        limits = catchup_limits(outbox)
        assert limits.room == outbox // 2
        assert 0 < limits.piece <= limits.room


def test_rules_that_ask_need_somebody_to_ask(tmp_path, log):
    file = tmp_path / "towerbus.toml"
    file.write_text('[[access]]\ngroups = ["jobs"]\nwho = "ask"\n')
    with pytest.raises(ConfigError, match="ask"):
        hub(settings({}, {}, str(file)), reactor, Table(), log)
