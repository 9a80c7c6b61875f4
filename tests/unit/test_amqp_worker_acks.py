"""Acknowledgements that wait for each other."""

from twisted.internet.task import Clock

from towerbus.amqp.worker.acks import MOST, PAUSE, Acks


class Channel:
    """Takes note of what is acknowledged."""

    def __init__(self):
        self.acked = []

    def ack(self, tag, *, multiple):
        assert multiple
        self.acked.append(tag)


def made(prefetch=1000):
    clock, channel = Clock(), Channel()
    return clock, channel, Acks(channel, prefetch, clock)


def test_one_goes_after_a_moment_with_all_that_have_come_meanwhile():
    clock, channel, acks = made()
    acks.settled(1)
    clock.advance(PAUSE / 2)
    acks.settled(3)
    assert channel.acked == []
    clock.advance(PAUSE / 2)
    assert channel.acked == [3]
    assert clock.getDelayedCalls() == []


def test_many_do_not_wait():
    clock, channel, acks = made()
    for tag in range(1, 3 * MOST):
        acks.settled(tag)
    assert channel.acked == [MOST, 2 * MOST]
    clock.advance(PAUSE)
    assert channel.acked[-1] == 3 * MOST - 1


def test_where_few_may_be_in_hand_none_waits_for_long():
    _, channel, acks = made(prefetch=1)
    acks.settled(1)
    acks.settled(2)
    assert channel.acked == [1, 2]


def test_what_must_not_come_again_does_not_wait():
    clock, channel, acks = made()
    acks.settled(1)
    acks.settled(2, at_once=True)
    assert channel.acked == [2]
    clock.advance(PAUSE)
    assert channel.acked == [2]


def test_nothing_is_acknowledged_after_the_end():
    clock, channel, acks = made()
    acks.settled(1)
    acks.close()
    clock.advance(PAUSE)
    assert channel.acked == []
