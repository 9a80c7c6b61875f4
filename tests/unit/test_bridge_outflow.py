"""What a sink gets: the events of its topics, in order, from where it was on."""

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, succeed
from zope.interface.verify import verifyClass

from towerbus.access import Patterns
from towerbus.bridge.interface import IOutflow
from towerbus.bridge.kept import KeptPosition
from towerbus.bridge.outflow import Outflow
from towerbus.bridge.standing import Standing, Title
from towerbus.errors import ConfigError
from towerbus.event import event
from towerbus.log.memory import MemoryLog


class KnownLog(MemoryLog):
    """The log of one process, which knows its end from the start."""

    def when_known(self):
        return succeed(None)


class Graves:
    def __init__(self):
        self.letters = []

    def bury(self, message, reason, bridge):
        self.letters.append((message, reason, bridge))
        return succeed(None)


class Sink:
    """The bus's side of a sink, on a log in memory."""

    def __init__(self, directory, topics=("jobs/*",), log=None, **limits):
        from twisted.internet import reactor

        self.log = log or KnownLog(reactor.seconds, **limits)
        self.kept = KeptPosition(directory, reactor, "s")
        self.standing = Standing(Title("s", "sink", "test"))
        self.graves = Graves()
        self.outflow = Outflow(self.standing, self.log, Patterns(topics), self.kept, self.graves, reactor)
        self.outflow.rewind()

    async def emit(self, *numbers, group="jobs", size=1):
        await self.log.emit([event(group, "x", b'{"n":%s}' % str(n).rjust(size).encode(), id=f"n{n}") for n in numbers])

    async def begin(self):
        """Take the log's end for its position."""
        waiting = self.take()
        await self.emit(-1)
        taken = await waiting
        await self.outflow.confirmed(taken[-1].position)

    def take(self, limit=100, size=10**6):
        return self.outflow.take(limit, size)


def numbers(taken):
    return [int(each.event.id[1:]) for each in taken]


def test_it_is_an_outflow():
    verifyClass(IOutflow, Outflow)


@ensureDeferred
async def test_a_new_sink_begins_at_the_end_and_gets_its_topics_in_order(tmp_path):
    sink = Sink(tmp_path)
    await sink.emit(0)
    waiting = sink.take()
    assert not waiting.called
    while not sink.kept.path.exists():
        await soon()
    await sink.emit(1, group="others")
    await sink.emit(2, 3)
    assert numbers(await waiting)[:1] == [2]
    sink.kept.close()


@ensureDeferred
async def test_limits(tmp_path):
    sink = Sink(tmp_path)
    await sink.begin()
    await sink.emit(*range(10), size=100)
    assert numbers(await sink.take(limit=3)) == [0, 1, 2]
    assert numbers(await sink.take(size=250)) == [3, 4]
    assert numbers(await sink.take(size=1)) == [5]
    sink.kept.close()


@ensureDeferred
async def test_what_was_not_confirmed_comes_again_in_the_next_life_and_after_a_restart(tmp_path):
    sink = Sink(tmp_path)
    await sink.begin()
    await sink.emit(*range(10))
    taken = await sink.take(limit=6)
    await sink.outflow.confirmed(taken[3].position)
    assert sink.standing.counts.events == 1 + 4
    sink.outflow.rewind()
    assert numbers(await sink.take()) == [4, 5, 6, 7, 8, 9]
    sink.kept.close()
    again = Sink(tmp_path, log=sink.log)
    assert numbers(await again.take()) == [4, 5, 6, 7, 8, 9]
    again.kept.close()


@ensureDeferred
async def test_a_part_that_the_log_let_go_of_is_counted_and_passed_over(tmp_path, logged_failures):
    sink = Sink(tmp_path, max_bytes=2000)
    await sink.begin()
    for number in range(100):
        await sink.emit(number, size=100)
    found = numbers(await sink.take())
    assert found == list(range(found[0], 100))
    assert found[0] > 0
    assert sink.standing.counts.lost == 1
    sink.kept.close()


@ensureDeferred
async def test_the_dead_queue_gets_the_address_the_id_and_the_position(tmp_path):
    sink = Sink(tmp_path)
    await sink.begin()
    await sink.emit(7)
    (each,) = await sink.take()
    await sink.outflow.bury(each, "never")
    ((message, reason, bridge),) = sink.graves.letters
    assert (message.body, message.id, message.routing_key) == (b'{"n":7}', "n7", "jobs.x")
    assert (message.headers["towerbus-position"], reason, bridge) == (str(each.position), "never", "s")
    sink.kept.close()


@ensureDeferred
async def test_a_position_that_is_none_is_told(tmp_path):
    sink = Sink(tmp_path)
    for damage in (b"", b"nonsense\n", b"\xff\x00\x80", b"e-1-2\n"):
        sink.kept.path.write_bytes(damage)
        with pytest.raises(ConfigError, match="is not a position.*remove the file"):
            sink.outflow.rewind()
    sink.kept.close()


@ensureDeferred
async def test_what_was_buried_does_not_count_as_taken(tmp_path):
    sink = Sink(tmp_path)
    await sink.begin()
    counts = sink.standing.counts
    before = counts.events
    await sink.emit(1, 2, 3)
    taken = await sink.take()
    await sink.outflow.bury(taken[1], "too large")
    await sink.outflow.confirmed(taken[-1].position)
    assert (counts.events - before, counts.dead) == (2, 1)
    sink.kept.close()


def soon():
    from twisted.internet import reactor

    done = Deferred()
    reactor.callLater(0.01, done.callback, None)
    return done
