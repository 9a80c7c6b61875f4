"""The followers of a log: order, waiting, and harm kept to oneself."""

from twisted.internet.defer import Deferred
from zope.interface import implementer

from towerbus.log.followers import Followers
from towerbus.log.interface import ILogFollower
from towerbus.log.record import Record
from towerbus.positions import Lost, Position


@implementer(ILogFollower)
class Follower:
    def __init__(self, act=lambda _: None):
        self.act, self.offsets, self.losses = act, [], []

    def received(self, record):
        self.offsets.append(record.offset)
        return self.act(record)

    def lost(self, lost):
        self.losses.append(lost)
        self.act(lost)


def record(offset):
    return Record("0a", 1, offset, ())


def test_a_record_that_another_leads_to_comes_behind_it_for_everyone():
    followers = Followers()
    first = Follower(lambda given: followers.deliver(record(2)) and None if given.offset == 1 else None)
    second = Follower()
    followers.add(first)
    followers.add(second)
    assert followers.deliver(record(1)).called
    assert first.offsets == second.offsets == [1, 2]


def test_it_is_done_when_nobody_asks_to_wait_any_longer():
    followers, waits = Followers(), [Deferred(), Deferred()]
    for wait in waits:
        followers.add(Follower(lambda _, wait=wait: wait))
    done = followers.deliver(record(1))
    waits[0].callback(None)
    assert not done.called
    waits[1].callback(None)
    assert done.called


def test_a_wait_that_fails_is_a_wait_that_ends():
    followers, wait = Followers(), Deferred()
    followers.add(Follower(lambda _: wait))
    done = followers.deliver(record(1))
    wait.errback(ZeroDivisionError())
    assert done.called


def test_one_that_fails_harms_no_other(logged_failures):
    followers, other = Followers(), Follower()
    followers.add(Follower(lambda _: 1 / 0))
    followers.add(other)
    lost = Lost(Position("0a", 1, 1, 0), Position("0a", 1, 2, 0), "gone")
    assert followers.deliver(record(1)).called
    followers.lost(lost)
    assert (other.offsets, other.losses) == ([1], [lost])
    # The one that failed is also told that it lost the record.
    assert [failure.type for failure in logged_failures] == [ZeroDivisionError] * 3
    logged_failures.clear()


def test_one_that_fails_hears_that_the_record_is_lost_to_it(logged_failures):
    followers = Followers()
    failing = Follower(lambda given: 1 / 0 if isinstance(given, Record) else None)
    followers.add(failing)
    followers.deliver(record(1))
    assert [(lost.after, lost.until) for lost in failing.losses] == [(record(1).begin, record(1).end)]
    logged_failures.clear()


def test_a_follower_that_is_added_meanwhile_gets_the_next_record():
    followers, late = Followers(), Follower()
    followers.add(Follower(lambda given: followers.add(late) if given.offset == 1 else None))
    followers.deliver(record(1))
    followers.deliver(record(2))
    assert late.offsets == [2]
