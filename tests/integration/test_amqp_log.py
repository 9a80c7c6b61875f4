"""The log in RabbitMQ, followed and replayed in this process, while everything happens to it that can."""

import contextlib
import random
from itertools import pairwise

import pytest
import pytest_twisted
from contract.buses import Follower, numbers
from support.log_writer import LogWriter, canary, numbered
from support.wires import until
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from towerbus.amqp import catchup, follow, replay, stall, stream
from towerbus.amqp.log import AmqpLog
from towerbus.amqp.stream import StreamReader
from towerbus.amqp.url import parse
from towerbus.errors import BusUnavailable, PositionLostError
from towerbus.log.following import ANEW, RESTORED, RETENTION
from towerbus.positions import Position

SMALL = {"x-max-length-bytes": 200_000, "x-stream-max-segment-size-bytes": 50_000}
"""A log that lets go of its records soon."""


@pytest.fixture
def writer(vhost):
    with LogWriter(vhost) as writer:
        writer.declare().fence()
        yield writer


@contextlib.asynccontextmanager
async def running(url, **given):
    """A log that runs."""
    log = AmqpLog(parse(url), reactor, **given)
    log.startService()
    try:
        yield log
    finally:
        await log.stopService()


@contextlib.asynccontextmanager
async def following(url, **given):
    """A log that runs and knows its end, and one who follows it."""
    async with running(url, **given) as log:
        follower = Follower(log)
        await log.when_known()
        yield log, follower


SOME_STALLS = 60.0
"""Seconds to read on in, where RabbitMQ may give whom retention has overtaken nothing more: it is asked anew after 8."""


def told_gaps(follower):
    """Where numbers are missing in what was read, as the last before and the first behind; each was told."""
    records = [record for record in follower.records if record.events]
    gaps = [
        (before, behind) for before, behind in pairwise(records) if numbers([behind])[0] != numbers([before])[-1] + 1
    ]
    assert follower.numbers == sorted(set(follower.numbers))
    assert follower.losses == [(before.end, behind.begin, RETENTION) for before, behind in gaps]
    return [(numbers([before])[-1], numbers([behind])[0]) for before, behind in gaps]


async def everything(log, after):
    """All that is behind a position."""
    found, reading = [], await log.replay(after)
    try:
        while records := await reading.more():
            found += records
    finally:
        reading.close()
    return numbers(found)


async def lost(log, after):
    """What is told of a position that is not there."""
    with pytest.raises(PositionLostError) as caught:
        await everything(log, after)
    assert caught.value.lost.after == after
    return caught.value.lost


async def failure(reading, found):
    """Read on until that fails."""
    while True:
        try:
            found += await reading.more()
        except (PositionLostError, BusUnavailable) as error:
            return error


def at(writer, offset, place=1, *, term=None, epoch=None):
    return Position(epoch or writer.epoch, writer.term if term is None else term, offset, place)


# Following


@pytest_twisted.ensureDeferred
async def test_what_was_there_is_in_the_tail_and_what_comes_is_handed_on(vhost, writer):
    writer.numbers(0, 300, each=3)
    async with following(vhost) as (log, follower):
        assert numbers(log.tail.records(log.tail.begin)) == list(range(300))
        assert log.tail.begin == at(writer, 0, 0)
        writer.numbers(300, 10)
        assert await follower.until(10) == list(range(300, 310))
        assert (log.trouble, await log.behind()) == ("", 0)


@pytest_twisted.ensureDeferred
async def test_the_tail_is_filled_and_no_more_than_that_is_read(vhost, writer):
    writer.numbers(0, 2000, each=2, size=300)
    async with following(vhost, tail_bytes=100_000) as (log, _):
        kept = numbers(log.tail.records(log.tail.begin))
        assert kept == list(range(2000))[-len(kept) :]
        assert 50_000 < log.tail.size <= 100_000
        assert log.records < 300


@pytest_twisted.ensureDeferred
async def test_a_log_that_is_not_there_yet_is_waited_for(vhost):
    with LogWriter(vhost) as writer:
        async with running(vhost) as log:
            await until(lambda: log.missing)
            assert "towerbus-worker" in log.trouble
            assert not log.known
            with pytest.raises(BusUnavailable, match="not known yet"):
                await log.replay(at(writer, 0))
            writer.declare().fence()
            await log.when_known()
            assert (log.missing, log.trouble) == ("", "")


@pytest_twisted.ensureDeferred
async def test_an_empty_stream_is_waited_for(vhost):
    with LogWriter(vhost) as writer:
        writer.declare()
        async with running(vhost) as log:
            await task.deferLater(reactor, 0.3, lambda: None)
            assert not log.known
            writer.fence()
            await log.when_known()
            assert log.tail.end == at(writer, 0, 0)


@pytest_twisted.ensureDeferred
async def test_records_that_are_void_are_handed_to_nobody(vhost, writer):
    async with following(vhost) as (log, follower):
        writer.fence(200)
        writer.write(*numbered(0))
        writer.write(*numbered(99), term=199)
        writer.write(*numbered(1))
        assert await follower.until(2) == [0, 1]
        assert log.voided == 1
        assert await everything(log, at(writer, 1, 0)) == [0, 1]


@pytest_twisted.ensureDeferred
async def test_internal_events_come_to_one_ear_only(vhost, writer):
    heard = []
    async with following(vhost) as (log, follower):
        log.on_internal = heard.extend
        begin = log.tail.end
        mine, other = canary("me", 1), canary("other", 1)
        writer.write(mine)
        writer.write(*numbered(0), other, *numbered(1))
        assert await follower.until(2) == [0, 1]
        assert heard == [mine, other]
        assert log.tail.end == at(writer, 2, 2)
        assert {event.topic.group for record in follower.records for event in record.events} == {"jobs"}
        assert {event.topic.group for record in log.tail.records(begin) for event in record.events} == {"jobs"}


@pytest_twisted.ensureDeferred
async def test_junk_is_passed_over_told_and_replayed_around(vhost, writer):
    async with following(vhost) as (log, follower):
        begin = log.tail.end
        writer.write(*numbered(0))
        writer.raw(b"junk")
        writer.raw(b"")
        writer.write(*numbered(1))
        assert await follower.until(2) == [0, 1]
        one, other = follower.losses
        assert (one.after, one.until) == (at(writer, 1), at(writer, 2, 0))
        assert (other.after, other.until) == (at(writer, 2, 0), at(writer, 3, 0))
        assert "offset 2" in one.reason
        assert log.unreadable == 2
        # The tail begins behind it, so that nobody who comes back is given both sides without a word.
        assert log.tail.begin == at(writer, 3, 0)
        reading = await log.replay(begin)
        assert numbers(await reading.more()) == [0]
        with pytest.raises(PositionLostError) as caught:
            await reading.more()
        reading.close()
        assert caught.value.lost[:2] == (at(writer, 1), at(writer, 2, 0))
        assert (await lost(log, at(writer, 2, 0))).until == at(writer, 3, 0)
        assert await everything(log, at(writer, 3, 0)) == [1]


@pytest_twisted.ensureDeferred
async def test_junk_at_the_end_is_no_obstacle_at_the_start(vhost, writer):
    writer.write(*numbered(0))
    writer.raw(b"junk")
    async with following(vhost) as (_, follower):
        writer.write(*numbered(1))
        assert await follower.until(1) == [1]
        assert follower.losses == []


@pytest_twisted.ensureDeferred
async def test_headers_that_nobody_can_decode_are_no_obstacle(vhost, writer):
    async with following(vhost) as (log, follower):
        writer.cursed(b"junk")
        writer.write(*numbered(0))
        assert await follower.until(1) == [0]
        assert follower.losses[0].until == at(writer, 1, 0)
        assert log.bus.reconnects == 0
    writer.cursed(b"junk")
    async with following(vhost) as (log, follower):
        writer.write(*numbered(1))
        assert await follower.until(1) == [1]


@pytest_twisted.ensureDeferred
async def test_a_stream_that_is_deleted_and_made_anew_is_read_from_its_first_record(vhost, writer):
    async with following(vhost) as (log, follower):
        writer.numbers(0, 3)
        await follower.until(3)
        end = log.tail.end
        writer.anew()
        writer.numbers(10, 3)
        assert await follower.until(6) == [0, 1, 2, 10, 11, 12]
        assert follower.losses == [(end, at(writer, 0, 0), ANEW)]
        assert log.tail.begin == at(writer, 0, 0)
        assert (await lost(log, end)).until == at(writer, 0, 0)


@pytest_twisted.ensureDeferred
async def test_a_stream_that_is_deleted_and_stays_away_is_waited_for(vhost, writer):
    async with following(vhost) as (log, follower):
        writer.numbers(0, 3)
        await follower.until(3)
        writer.delete()
        await until(lambda: log.missing)
        assert log.known
        assert await everything(log, at(writer, 1)) == [1, 2], "the tail still serves"
        writer.declare()
        writer.epoch = "abc"
        writer.fence(1)
        await until(lambda: follower.losses)
        assert follower.losses[0].until == at(writer, 0, 0)


@pytest_twisted.ensureDeferred
async def test_a_longer_log_in_its_place_is_noticed(vhost, writer):
    async with following(vhost) as (log, follower):
        writer.numbers(0, 3)
        await follower.until(3)
        await log.stopService()
        writer.anew()
        writer.numbers(10, 20)
        log.startService()
        assert (await follower.until(23))[3:] == list(range(10, 30))
        (loss,) = follower.losses
        assert (loss.until, loss.reason) == (at(writer, 0, 0), ANEW)


@pytest_twisted.ensureDeferred
async def test_an_older_copy_in_its_place_is_no_black_hole(vhost, writer):
    """The same log, but shorter: to ask for what is behind its end would be to wait for ever."""
    async with following(vhost) as (log, follower):
        writer.numbers(0, 9)
        await follower.until(9)
        before = log.tail.end
        await log.stopService()
        epoch = writer.epoch
        writer.anew(fence=False)
        writer.epoch, writer.term = epoch, 100
        writer.fence()
        writer.numbers(0, 3)
        log.startService()
        await until(lambda: follower.losses)
        assert follower.losses == [(before, at(writer, 3), RESTORED)]
        writer.fence(200)
        writer.numbers(50, 3)
        assert (await follower.until(12))[9:] == [50, 51, 52]
        assert (await lost(log, before)).until == at(writer, 4, 0)


@pytest_twisted.ensureDeferred
async def test_retention_that_overtakes_who_is_cut_off_is_told(vhost):
    with LogWriter(vhost, **SMALL) as writer:
        writer.declare().fence()
        async with following(vhost) as (log, follower):
            writer.numbers(0, 3)
            await follower.until(3)
            await log.stopService()
            writer.numbers(3, 2000, size=400)
            log.startService()
            await until(lambda: 2002 in follower.numbers, SOME_STALLS)
            gaps = told_gaps(follower)
            assert gaps[0][0] == 2
            assert gaps[-1][1] > 1000
            assert log.tail.begin == follower.losses[-1].until


@pytest_twisted.ensureDeferred
async def test_retention_that_overtakes_who_is_slow_is_told(vhost):
    """RabbitMQ sets it behind the gap without a word."""
    with LogWriter(vhost, **SMALL) as writer:
        writer.declare().fence()
        async with following(vhost) as (log, follower):
            follower.wait = Deferred()
            writer.numbers(0, 3000, size=400)
            await until(lambda: log.paused)
            wait, follower.wait = follower.wait, None
            wait.callback(None)
            await until(lambda: 2999 in follower.numbers, SOME_STALLS)
            assert follower.numbers[0] == 0
            assert told_gaps(follower)


@pytest.fixture
def deaf(monkeypatch):
    """The broker gives the first consumer of the log five records, and then nothing more: all readers, as they come."""
    readers = []

    class Deaf(StreamReader):
        heard = 0

        def _arrived(self, delivery):
            if not self.heard:
                readers.append(self)
            self.heard += 1
            if readers[0] is not self or self.heard <= 5:
                super()._arrived(delivery)

    monkeypatch.setattr(follow, "StreamReader", Deaf)
    monkeypatch.setattr(stall, "PATIENCE", 0.3)
    monkeypatch.setattr(stall, "EVERY", 0.1)
    return readers


@pytest_twisted.ensureDeferred
async def test_a_broker_that_falls_silent_before_the_end_is_known_is_asked_anew(vhost, writer, deaf):
    writer.numbers(0, 50)
    async with following(vhost) as (log, _):
        assert len(deaf) > 1
        assert await everything(log, at(writer, 1)) == list(range(1, 50))


@pytest_twisted.ensureDeferred
async def test_a_broker_that_falls_silent_later_is_asked_anew_by_whoever_reads(vhost, writer, deaf):
    """A bridge has no canary: nobody but the log itself can notice."""
    async with following(vhost) as (_, follower):
        writer.numbers(0, 50)
        assert await follower.until(50) == list(range(50))
        assert len(deaf) > 1
        assert follower.losses == []


@pytest_twisted.ensureDeferred
async def test_nobody_is_asked_anew_where_there_is_nothing_or_nobody_takes_it(vhost, writer, monkeypatch):
    monkeypatch.setattr(stall, "PATIENCE", 0.3)
    monkeypatch.setattr(stall, "EVERY", 0.1)
    looks = []

    def look(*given):
        looks.append(given)
        return stream.read_end(*given)

    monkeypatch.setattr(follow, "read_end", look)
    async with following(vhost) as (log, follower):
        await until(lambda: len(looks) >= 4)
        follower.wait = Deferred()
        writer.numbers(0, 50)
        await until(lambda: log.paused)
        await task.deferLater(reactor, 1.0, lambda: None)
        wait, follower.wait = follower.wait, None
        wait.callback(None)
        assert await follower.until(50) == list(range(50))
        assert log.bus.reconnects == 0


@pytest_twisted.ensureDeferred
async def test_offsets_that_segments_use_up_are_no_loss(vhost):
    with LogWriter(vhost, **SMALL | {"x-max-length-bytes": 50_000_000}) as writer:
        writer.declare().fence()
        async with following(vhost) as (log, follower):
            writer.numbers(0, 1500, size=400)
            assert await follower.until(1500) == list(range(1500))
            assert log.offset > 1500 + 5, "segments were begun"
            assert follower.losses == []


@pytest_twisted.ensureDeferred
async def test_a_follower_that_asks_to_wait_is_waited_for_in_bounded_memory(vhost, writer):
    async with following(vhost) as (log, follower):
        follower.wait = Deferred()
        writer.numbers(0, 1000)
        await until(lambda: log.paused)
        await task.deferLater(reactor, 0.3, lambda: None)
        assert len(follower.records) == 1
        assert len(log._follow._reader._held) <= 400
        wait, follower.wait = follower.wait, None
        wait.callback(None)
        assert await follower.until(1000) == list(range(1000))


# Replays


@pytest_twisted.ensureDeferred
async def test_a_replay_gives_everything_behind_any_position(vhost, writer):
    writer.numbers(0, 900, each=3)
    async with following(vhost, tail_bytes=20_000) as (log, follower):
        assert log.tail.begin.offset > 200
        assert await everything(log, at(writer, 0, 0)) == list(range(900))
        for offset, place, first in (
            (1, 1, 1),
            (1, 3, 3),
            (100, 2, 299),
            (log.tail.begin.offset, 1, log.tail.begin.offset * 3 - 2),
        ):
            found = [n for n in await everything(log, at(writer, offset, place)) if n >= first]
            assert found == list(range(first, 900))
        writer.numbers(900, 3)
        await follower.until(3)
        assert await everything(log, at(writer, 0, 0)) == list(range(903))


def mixed(writer, chance):
    """A log of all kinds of records; the positions in it that count, each with the number of the event there."""
    positions, number = [(at(writer, 0, 0), -1)], -1
    for offset in range(1, 150):
        kind = chance.choice(["events"] * 6 + ["fence", "zombie", "junk", "canary"])
        if kind == "fence":
            writer.fence(writer.term + 1)
        elif kind == "zombie":
            writer.write(*numbered(9999), term=writer.term - 1)
            continue
        elif kind == "junk":
            writer.raw(b"junk")
        elif kind == "canary":
            writer.write(canary("x", 1))
        else:
            events = numbered(number + 1, chance.randint(1, 3))
            writer.write(*[each for event in events for each in (canary("x", 1), event)[chance.randint(0, 1) :]])
            for place in range(1, len(events) + 1):
                number += 1
                positions.append((at(writer, offset, place), number))
            continue
        positions.append((at(writer, offset, 0), number))
    return positions, number


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("tail_bytes", [1, 10_000, 10**6])
@pytest_twisted.ensureDeferred
async def test_every_position_of_a_mixed_log_leads_to_all_that_is_behind_it(vhost, writer, seed, tail_bytes):
    chance = random.Random(seed)
    positions, last = mixed(writer, chance)
    async with following(vhost, tail_bytes=tail_bytes) as (log, _):
        for position, number in chance.sample(positions, 25):
            found, after = [], position
            while True:
                reading = await log.replay(after)
                try:
                    while records := await reading.more():
                        found += [(record, place) for record in records for place in record.behind(after)]
                    break
                except PositionLostError as error:
                    assert "no record" in error.lost.reason, "only what can't be read is lost"
                    after = error.lost.until
                finally:
                    reading.close()
            events = [record.events[place] for record, place in found]
            assert [int(event.payload[5:].partition(b",")[0]) for event in events] == list(range(number + 1, last + 1))


@pytest_twisted.ensureDeferred
async def test_a_replay_is_read_at_its_readers_pace_and_goes_on_with_what_comes(vhost, writer, monkeypatch):
    monkeypatch.setattr(replay, "PIECE", 20_000)
    monkeypatch.setattr(replay, "HELD", 0.1)
    writer.numbers(0, 2000, size=200)
    async with following(vhost, tail_bytes=20_000) as (log, follower):
        reading, found = await log.replay(at(writer, 0, 0)), []
        while records := await reading.more():
            assert sum(len(event.payload) for record in records for event in record.events) < 200_000
            found += records
            if len(found) < 500:
                # Its consumer is let go of meanwhile, and found again.
                await until(lambda: log.catch_up.readers == 0)
        assert numbers(found) == list(range(2000))
        assert await reading.more() == []
        writer.numbers(2000, 500, size=200)
        await follower.until(500)
        while records := await reading.more():
            found += records
        assert numbers(found) == list(range(2500))
        reading.close()


@pytest_twisted.ensureDeferred
async def test_a_consumer_is_not_let_go_of_while_its_reader_waits_for_it(vhost, writer, monkeypatch):
    monkeypatch.setattr(replay, "PIECE", 20_000)
    monkeypatch.setattr(replay, "HELD", 0.0)  # less than any broker takes for the next piece
    writer.numbers(0, 2000, size=200)
    async with following(vhost, tail_bytes=20_000) as (log, _):
        reading, found = await log.replay(at(writer, 0, 0)), []
        while records := await reading.more():
            found += records
        assert numbers(found) == list(range(2000))
        reading.close()


@pytest_twisted.ensureDeferred
async def test_a_replay_gives_nothing_that_followers_have_not_had(vhost, writer):
    """Who follows gets it from the log: it would come twice."""
    writer.numbers(0, 500)
    async with following(vhost, tail_bytes=5_000) as (log, follower):
        follower.wait = Deferred()
        writer.numbers(500, 100)
        await until(lambda: log.paused)
        assert await everything(log, at(writer, 1)) == list(range(1, 501))
        wait, follower.wait = follower.wait, None
        wait.callback(None)
        await follower.until(100)


@pytest_twisted.ensureDeferred
async def test_many_replays_take_turns(vhost, writer):
    writer.numbers(0, 500)
    async with following(vhost, tail_bytes=5_000) as (log, _):
        most = []
        reads = [Deferred.fromCoroutine(everything(log, at(writer, 0, 0))) for _ in range(20)]
        watch = task.LoopingCall(lambda: most.append((log.catch_up.readers, log.catch_up.waiting)))
        watch.start(0.01)
        assert await gatherResults(reads) == [list(range(500))] * 20
        watch.stop()
        assert max(readers for readers, _ in most) <= catchup.READERS
        assert max(waiting for _, waiting in most) > 10
        assert log.catch_up.readers == 0


@pytest_twisted.ensureDeferred
async def test_the_second_connection_is_there_only_while_somebody_reads(vhost, writer, broker, monkeypatch):
    monkeypatch.setattr(catchup, "IDLE", 0.1)
    writer.numbers(0, 100)
    async with following(vhost, tail_bytes=5_000) as (log, _):
        assert log.catch_up._connection is None
        assert await everything(log, at(writer, 0, 0)) == list(range(100))
        await until(lambda: log.catch_up._connection is None)
        assert await everything(log, at(writer, 0, 0)) == list(range(100))


@pytest_twisted.ensureDeferred
async def test_positions_that_are_not_there(vhost, writer):
    writer.numbers(0, 100)
    writer.fence(200)
    writer.numbers(100, 100)
    async with following(vhost, tail_bytes=5_000) as (log, _):
        end = log.tail.end
        for past in (at(writer, 9999), end._replace(place=2), end._replace(term=201)):
            assert (await lost(log, past)).until == end
        assert (await lost(log, at(writer, 5, epoch="abc"))).until == at(writer, 0, 0, term=100)
        assert (await lost(log, at(writer, 5, 7, term=100))).until == at(writer, 5, 1, term=100)
        # Of a future that a restored copy does not have: what is new begins with the next term.
        for offset in (5, 150, end.offset):
            loss = await lost(log, at(writer, offset, 1, term=150))
            assert loss.until == at(writer, 101, 0)
            assert "from a copy" in loss.reason
        assert (await everything(log, loss.until)) == list(range(100, 200))


@pytest_twisted.ensureDeferred
async def test_a_position_that_another_server_has_read_before_us_is_waited_for(vhost, writer):
    async with following(vhost) as (log, follower):
        follower.wait = Deferred()
        writer.numbers(0, 10)
        await until(lambda: log.paused)
        reading = log.replay(at(writer, 10))
        await task.deferLater(reactor, 0.1, lambda: None)
        assert not reading.called
        wait, follower.wait = follower.wait, None
        wait.callback(None)
        (await reading).close()


@pytest_twisted.ensureDeferred
async def test_a_position_that_retention_took_is_told(vhost):
    with LogWriter(vhost, **SMALL) as writer:
        writer.declare().fence()
        writer.numbers(0, 3000, size=400)
        async with following(vhost, tail_bytes=20_000) as (log, _):
            loss = await lost(log, at(writer, 5))
            assert loss.reason == RETENTION
            left = await everything(log, loss.until)
            assert left == list(range(left[0], 3000))
            assert 1000 < left[0] < log.tail.begin.offset


@pytest_twisted.ensureDeferred
async def test_a_replay_that_retention_overtakes_says_so(vhost, monkeypatch):
    monkeypatch.setattr(replay, "PIECE", 5_000)
    with LogWriter(vhost, **SMALL) as writer:
        writer.declare().fence()
        writer.numbers(0, 300, size=400)
        async with following(vhost, tail_bytes=5_000) as (log, follower):
            reading = await log.replay(at(writer, 0, 0))
            found = [*await reading.more()]
            # Slowly enough for who follows, who would be overtaken too.
            for number in range(300, 3300, 50):
                writer.numbers(number, 50, size=400)
                await follower.until(number - 250)
            loss = (await failure(reading, found)).lost
            reading.close()
            assert loss.after == found[-1].end
            assert numbers(found) == list(range(len(numbers(found))))
            left = await everything(log, loss.until)
            assert left == list(range(left[0], 3300))
            assert left[0] > len(numbers(found))


@pytest_twisted.ensureDeferred
async def test_a_replay_of_a_log_that_is_made_anew_meanwhile(vhost, writer, monkeypatch):
    monkeypatch.setattr(replay, "PIECE", 1_000)
    writer.numbers(0, 500)
    async with following(vhost, tail_bytes=5_000) as (log, follower):
        reading = await log.replay(at(writer, 0, 0))
        assert numbers(await reading.more())[0] == 0
        writer.anew()
        writer.numbers(1000, 5)
        await follower.until(5)
        if isinstance(await failure(reading, []), BusUnavailable):
            assert isinstance(await failure(reading, []), PositionLostError)
        reading.close()


@pytest_twisted.ensureDeferred
async def test_replays_may_be_closed_at_any_time(vhost, writer):
    writer.numbers(0, 500)
    async with following(vhost, tail_bytes=5_000) as (log, _):
        for turns in (0, 0.001, 0.003, 0.01, 0.03):
            reading = await log.replay(at(writer, 0, 0))
            under_way = reading.more()
            under_way.addErrback(lambda _: None)
            await task.deferLater(reactor, turns, lambda: None)
            reading.close()
            reading.close()
        await until(lambda: log.catch_up.readers == 0)
        assert await everything(log, at(writer, 0, 0)) == list(range(500))


# What happens to the broker


@pytest.mark.seconds(120)
@pytest_twisted.ensureDeferred
async def test_a_broker_that_is_killed_and_comes_back(own_broker):
    url = own_broker.vhost()
    with LogWriter(url) as writer:
        writer.declare().fence()
        writer.numbers(0, 500)
        own_broker.settle()
        async with following(url, tail_bytes=5_000) as (log, follower):
            reading = await log.replay(at(writer, 0, 0))
            first = await reading.more()
            for round_ in range(2):
                await deferToThread(own_broker.kill)
                await until(lambda: log.trouble)
                with pytest.raises(BusUnavailable):
                    await log.replay(at(writer, 5))
                assert await everything(log, log.tail.begin), "the tail still serves"
                await deferToThread(own_broker.start)
                await deferToThread(own_broker.await_queues, url)
                writer.connect()
                writer.numbers(500 + round_ * 50, 50)
                await follower.until(50 + round_ * 50)
            assert follower.numbers == list(range(500, 600))
            assert follower.losses == []
            assert log.bus.reconnects >= 2
            found, told = [*first], 0
            while log.tail.end > found[-1].end:
                try:
                    found += await reading.more()
                except BusUnavailable:
                    told += 1
            reading.close()
            assert told == 1
            assert numbers(found) == list(range(600))


@pytest_twisted.ensureDeferred
async def test_a_broker_that_hangs_is_noticed_and_followed_on(own_broker):
    url = own_broker.vhost() + "?heartbeat=1"
    with LogWriter(url.partition("?")[0]) as writer:
        writer.declare().fence()
        async with following(url) as (log, follower):
            writer.numbers(0, 5)
            await follower.until(5)
            look = None
            own_broker.freeze()
            try:
                look = log.behind()
                await until(lambda: log.trouble)
            finally:
                own_broker.thaw()
            with pytest.raises(BusUnavailable):
                await look
            await until(lambda: not log.trouble)
            writer.close()
            writer.connect()
            writer.numbers(5, 5)
            assert await follower.until(10) == list(range(10))
            assert follower.losses == []
