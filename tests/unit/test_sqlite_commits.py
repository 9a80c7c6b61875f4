"""Commits: one at a time, with all that is queued; what becomes of them when they fail, or do not come back."""

import pytest
from twisted.internet.defer import Deferred, succeed

from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.event import Event
from towerbus.log.sqlite_commits import Commits
from towerbus.log.window import IdWindow
from towerbus.positions import Position
from towerbus.topics import Topic


def event(id_):
    return Event(Topic("g", "t"), b"{}", id_, 0.0)


class Disk:
    """A disk whose writes come back when the test says so, and all who are told of it."""

    def __init__(self):
        self.now = 0.0
        self.writes, self.delivered, self.dirty, self.errors = [], [], [], []
        self.waits = False
        self.commits = Commits(
            write=self.write,
            deliver=self.deliver,
            written=self.dirty.append,
            not_written=self.failed,
            queue_bytes=1_000_000,
            seconds=lambda: self.now,
        )
        self.commits.go_on(Position("0a", 3, 7, 0), 4, IdWindow())

    def write(self, records):
        self.writes.append((records, back := Deferred()))
        return back

    def deliver(self, record):
        self.delivered.append(record)
        if not self.waits:
            return succeed(None)
        self.waiting = Deferred()
        return self.waiting

    def failed(self, error):
        self.errors.append(error)
        self.commits.refuse(error)

    def put(self, *ids):
        outcome = []
        self.commits.put([event(id_) for id_ in ids]).addBoth(outcome.append)
        return outcome

    def comes_back(self, dirty=False):
        self.writes[-1][1].callback(dirty)

    def fails(self, error):
        self.writes[-1][1].errback(error)

    @property
    def written(self):
        return [[event.id for record in records for event in record.events] for records, _ in self.writes]


@pytest.fixture
def disk():
    return Disk()


def test_the_first_goes_at_once_and_the_others_together(disk):
    outcomes = [disk.put(id_) for id_ in "abcd"]
    assert disk.written == [["a"]]
    disk.comes_back()
    assert disk.written == [["a"], ["b", "c", "d"]]
    assert outcomes == [[None], [], [], []]
    disk.comes_back(dirty=True)
    assert outcomes == [[None]] * 4
    assert disk.dirty == [False, True]


def test_records_go_on_behind_the_end_in_the_term(disk):
    disk.put(*(str(number) for number in range(300)))
    disk.put("more")
    disk.comes_back()
    disk.comes_back()
    assert [(each.epoch, each.term, each.offset, len(each.events)) for each in disk.delivered] == [
        ("0a", 4, 8, 256),
        ("0a", 4, 9, 44),
        ("0a", 4, 10, 1),
    ]


def test_nothing_is_delivered_before_it_is_written_and_the_disk_does_not_wait_for_followers(disk):
    disk.waits = True
    one, two = disk.put("a"), disk.put("b")
    assert not disk.delivered
    disk.comes_back()
    assert [record.offset for record in disk.delivered] == [8]
    assert len(disk.writes) == 2
    assert not one
    disk.waiting.callback(None)
    assert one == [None]
    assert not two


def test_offsets_of_what_failed_are_given_again(disk):
    disk.put("a")
    disk.fails(BusUnavailable("full"))
    disk.put("b")
    disk.comes_back()
    assert [record.offset for record in disk.delivered] == [8]


@pytest.mark.parametrize("error", [BusUnavailable("full"), NotConfirmed("unknown")])
def test_what_failed_hears_the_error_and_what_was_queued_was_surely_not_written(disk, error):
    one, two = disk.put("a"), disk.put("b")
    disk.fails(error)
    assert (type(one[0].value), one[0].value.reason) == (type(error), error.reason)
    assert (type(two[0].value), two[0].value.reason) == (BusUnavailable, error.reason)
    assert disk.errors == [error]
    assert not disk.commits.under_way
    again = disk.put("a")
    disk.comes_back()
    assert again == [None]


def test_a_bug_is_logged_and_leaves_doubt(disk, logged_failures):
    one = disk.put("a")
    disk.fails(ZeroDivisionError())
    assert type(one[0].value) is NotConfirmed
    assert [failure.type for failure in logged_failures] == [ZeroDivisionError]
    logged_failures.clear()


def test_one_that_does_not_come_back(disk):
    assert disk.commits.taking == 0
    one, two = disk.put("a"), disk.put("b")
    disk.now = 6.0
    assert disk.commits.taking == 6
    disk.commits.doubt("slow")
    assert type(one[0].value) is NotConfirmed
    assert type(two[0].value) is BusUnavailable
    disk.comes_back()
    assert [record.offset for record in disk.delivered] == [8]
    assert disk.put("a") == [None], "it is in the log after all"


def test_draining_waits_for_all(disk):
    assert disk.commits.drained().called
    disk.put("a")
    disk.put("b")
    drained = disk.commits.drained()
    disk.comes_back()
    assert not drained.called
    disk.comes_back()
    assert drained.called


def test_draining_ends_when_writing_fails(disk):
    disk.put("a")
    drained = disk.commits.drained()
    disk.fails(BusUnavailable("full"))
    assert drained.called


def test_what_was_given_up_may_still_come_back(disk):
    one = disk.put("a")
    disk.commits.refuse(NotConfirmed("closed"))
    assert type(one[0].value) is NotConfirmed
    disk.comes_back()
    assert not disk.delivered
    two = disk.put("b")
    disk.commits.refuse(NotConfirmed("closed"))
    disk.fails(BusUnavailable("full"))
    assert two
    assert not disk.errors


def test_what_is_on_the_disk_can_be_confirmed_whatever_followers_ask_for(disk):
    disk.waits = True
    one = disk.put("a")
    disk.comes_back()
    disk.commits.confirm_landed()
    assert one == [None]
    disk.waiting.callback(None)


def test_it_goes_on_elsewhere(disk):
    window = IdWindow()
    window.add([event("known")])
    disk.commits.go_on(Position("0b", 9, 99, 0), 10, window)
    assert disk.put("known") == [None]
    disk.put("a")
    disk.comes_back()
    assert [(each.epoch, each.term, each.offset) for each in disk.delivered] == [("0b", 10, 100)]
