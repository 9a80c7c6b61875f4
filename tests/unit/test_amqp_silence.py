"""Heartbeats, with a clock turned by hand."""

from types import SimpleNamespace

from twisted.internet.task import Clock

from towerbus.amqp.silence import LOOKS, Silence


class Connection:
    """What pika's heartbeats see of a connection."""

    def __init__(self, clock):
        self.params = SimpleNamespace(heartbeat=4)
        self.clock, self.bytes_received, self.bytes_sent = clock, 0, 0
        self.sent, self.ended = [], []

    def _create_heartbeat_checker(self):
        raise AssertionError("pika's own")

    def _adapter_call_later(self, delay, call):
        return self.clock.callLater(delay, call)

    def _adapter_remove_timeout(self, timer):
        if timer.active():
            timer.cancel()

    def _send_frame(self, frame):
        self.sent.append(self.clock.seconds())

    def _terminate_stream(self, error):
        self.ended.append((self.clock.seconds(), str(error)))


def watched():
    clock = Clock()
    connection = Connection(clock)
    Silence.watch(connection)
    return clock, connection, connection._create_heartbeat_checker()


def test_heartbeats_are_sent_each_half_of_one():
    clock, connection, checker = watched()
    clock.pump([2] * 3)
    assert connection.sent == [2, 4, 6]
    checker.stop()
    assert clock.getDelayedCalls() == []


def test_a_broker_that_sends_anything_is_kept():
    clock, connection, checker = watched()
    for _ in range(100):
        clock.pump([1] * 8)
        connection.bytes_received += 1
    assert connection.ended == []
    checker.stop()


def test_a_silent_one_is_given_up_after_two_and_a_half():
    clock, connection, checker = watched()
    connection.bytes_received = 100
    clock.pump([0.5] * 60)
    ((when, text),) = connection.ended
    assert 2 * 4 <= when <= 3 * 4
    assert f"no heartbeat for {LOOKS * 2} s" in text
    checker.stop()


def test_a_process_that_was_stopped_for_long_reads_before_it_judges():
    clock, connection, checker = watched()
    clock.pump([2] * 2)
    clock.advance(3600)
    connection.bytes_received += 1
    clock.pump([2] * 4)
    assert connection.ended == []
    checker.stop()
