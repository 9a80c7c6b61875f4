"""What every log does, whatever stands behind it."""

import pytest
import pytest_twisted
from contract.buses import MAX_BYTES, Follower, MemoryBus, SqliteBus, SqliteBusInMemory, made, numbers
from support.wires import until
from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from towerbus.errors import PositionLostError
from towerbus.intake.interface import IIntake
from towerbus.log.interface import ILog, ILogFollower, IReplay
from towerbus.positions import Position

BUSES = [MemoryBus, SqliteBus, SqliteBusInMemory]


@pytest_twisted.async_yield_fixture(params=BUSES, ids=lambda bus: bus.__name__)
async def bus(request, tmp_path):
    made = request.param(tmp_path)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def durable(bus):
    if not bus.durable:
        pytest.skip("it is gone with its process")
    return bus


@pytest.fixture
def ageing(bus):
    if not bus.keeps_age:
        pytest.skip("its time is not ours to move")
    return bus


@pytest_twisted.ensureDeferred
async def test_it_provides_its_seams(bus):
    assert verifyObject(ILog, bus.log)
    assert verifyObject(IIntake, bus.intake)
    assert verifyObject(ILogFollower, Follower(bus.log))
    replay = await bus.log.replay(bus.log.tail.end)
    assert verifyObject(IReplay, replay)
    replay.close()


@pytest_twisted.ensureDeferred
async def test_followers_get_everything_in_order_from_then_on(bus):
    one = Follower(bus.log)
    await bus.emit(made(1), made(2))
    other = Follower(bus.log)
    await bus.emit(made(3))
    assert await one.until(3) == [1, 2, 3]
    assert await other.until(1) == [3]


@pytest_twisted.ensureDeferred
async def test_events_emitted_at_once_come_in_the_order_of_their_emits(bus):
    follower = Follower(bus.log)
    await gatherResults([bus.intake.emit([made(2 * number), made(2 * number + 1)]) for number in range(200)])
    assert await follower.until(400) == list(range(400))


@pytest_twisted.ensureDeferred
async def test_a_record_is_in_the_tail_before_followers_get_it(bus):
    follower = Follower(bus.log)
    for number in range(5):
        await bus.emit(made(number))
    await follower.until(5)
    assert not follower.too_early
    assert bus.log.tail.records(follower.records[2].begin)[0] is follower.records[2]


@pytest_twisted.ensureDeferred
async def test_records_rise_and_are_of_one_log(bus):
    follower = Follower(bus.log)
    for number in range(5):
        await bus.emit(made(number))
    await follower.until(5)
    ends = [record.end for record in follower.records]
    assert ends == sorted(ends)
    offsets = [record.offset for record in follower.records]
    assert offsets == sorted(set(offsets))
    assert {record.epoch for record in follower.records} == {bus.log.tail.begin.epoch}
    assert bus.log.tail.end == follower.records[-1].end


@pytest_twisted.ensureDeferred
async def test_an_emit_of_nothing_is_confirmed(bus):
    assert await bus.intake.emit([]) is None


@pytest_twisted.ensureDeferred
async def test_an_id_that_is_in_the_log_is_confirmed_and_not_repeated(bus):
    follower = Follower(bus.log)
    await bus.emit(made(1, id="a"), made(1, id="a"))
    await bus.emit(made(1, id="a"), made(2, id="b"))
    await bus.emit(made(3))
    assert await follower.until(3) == [1, 2, 3]


@pytest_twisted.ensureDeferred
async def test_an_id_that_is_under_way_is_confirmed_and_not_repeated(bus):
    follower = Follower(bus.log)
    emits = [bus.intake.emit([made(0)])]
    emits += [bus.intake.emit([made(1, id="a"), made(2, id="b")]) for _ in range(3)]
    emits += [bus.intake.emit([made(2, id="b"), made(3, id="c")])]
    await gatherResults(emits)
    await bus.emit(made(4))
    assert await follower.until(5) == [0, 1, 2, 3, 4]


@pytest_twisted.ensureDeferred
async def test_records_are_bounded_in_events_and_bytes(bus):
    follower = Follower(bus.log)
    await bus.intake.emit([made(number) for number in range(600)])
    assert await follower.until(600) == list(range(600))
    assert all(len(record.events) <= 256 for record in follower.records)
    follower.records.clear()
    await bus.intake.emit([made(number, size=40_000) for number in range(3)])
    assert await follower.until(3) == [0, 1, 2]
    assert all(len(record.events) <= 1 for record in follower.records)


@pytest_twisted.ensureDeferred
async def test_payload_id_time_and_topic_come_out_as_they_went_in(bus):
    follower = Follower(bus.log)
    event = made(1, id="!~", at=1700000000.123456)
    await bus.intake.emit([event])
    await follower.until(1)
    assert [given for record in follower.records for given in record.events] == [event]


@pytest_twisted.ensureDeferred
async def test_a_replay_goes_on_behind_any_position(bus):
    follower = Follower(bus.log)
    begin = bus.log.tail.end
    for number in range(0, 12, 3):
        await bus.emit(made(number), made(number + 1), made(number + 2))
    await follower.until(12)
    assert await bus.read(begin) == list(range(12))
    seen = 0
    for record in follower.records:
        for place in range(len(record.events)):
            seen += 1
            assert await bus.read(record.position(place)) == list(range(seen, 12))
    assert await bus.read(bus.log.tail.end) == []


@pytest_twisted.ensureDeferred
async def test_a_replay_that_has_read_all_goes_on_with_what_came_since(bus):
    await bus.emit(made(0))
    replay = await bus.log.replay(bus.log.tail.begin)
    read = []
    while records := await replay.more():
        read += records
    assert not await replay.more()
    await bus.emit(made(1))
    await bus.emit(made(2))
    while records := await replay.more():
        read += records
    assert numbers(read) == [0, 1, 2]
    assert len({record.offset for record in read}) == len(read)
    replay.close()


@pytest_twisted.ensureDeferred
async def test_replays_do_not_disturb_each_other(bus):
    begin = bus.log.tail.end
    await bus.emit(*(made(number) for number in range(300)))
    reads = [Deferred.fromCoroutine(bus.read(begin)) for _ in range(20)]
    assert await gatherResults(reads) == [list(range(300))] * 20


@pytest_twisted.ensureDeferred
async def test_a_replay_may_be_closed_at_any_time(bus):
    await bus.emit(made(1))
    replay = await bus.log.replay(bus.log.tail.begin)
    under_way = replay.more()
    replay.close()
    under_way.addErrback(lambda _: None)
    replay.close()
    assert await bus.read(bus.log.tail.begin) == [1]


async def refused(bus, position, words):
    """A position is refused, and the log can be read on from where it says."""
    with pytest.raises(PositionLostError, match=words) as caught:
        await bus.read(position)
    assert caught.value.lost.after == position
    return caught.value.lost.until


@pytest_twisted.ensureDeferred
async def test_the_position_of_another_log_is_refused(bus):
    await bus.emit(made(1), made(2))
    until = await refused(bus, Position("ffff", 1, 0, 0), "another log")
    assert await bus.read(until) == [1, 2]


@pytest_twisted.ensureDeferred
async def test_a_position_past_the_end_is_refused(bus):
    await bus.emit(made(1))
    end = bus.log.tail.end
    for past in (end._replace(offset=end.offset + 99), end._replace(place=2), end._replace(term=end.term + 1)):
        until = await refused(bus, past, "past the end")
        assert await bus.read(until) == []


@pytest_twisted.ensureDeferred
async def test_a_position_of_a_lost_future_is_refused(durable):
    """The log was restored from a copy: other records stand where those of the old term stood."""
    await durable.emit(made(0))
    old = durable.log.tail.end
    await durable.restart()
    await durable.emit(made(1))
    await durable.emit(made(2))
    until = await refused(durable, durable.log.tail.end._replace(term=old.term), "from a copy")
    assert await durable.read(until) == [1, 2]


@pytest_twisted.ensureDeferred
async def test_a_place_that_its_record_does_not_have_is_refused(bus):
    follower = Follower(bus.log)
    await bus.emit(made(1))
    await bus.emit(made(2))
    await follower.until(2)
    until = await refused(bus, follower.records[0].end._replace(place=7), "not in the log")
    assert await bus.read(until) in ([], [2])


@pytest_twisted.ensureDeferred
async def test_old_records_go_and_their_positions_are_refused(ageing):
    await ageing.emit(made(0))
    first = ageing.log.tail.begin
    await ageing.advance(61)
    await ageing.emit(made(1))
    until = await refused(ageing, first, "kept for 60 s")
    assert await ageing.read(until) == [1]


@pytest_twisted.ensureDeferred
async def test_size_is_bounded(bus):
    begin = bus.log.tail.begin
    for number in range(200):
        await bus.intake.emit([made(number, size=1000)])
    assert bus.log.tail.size <= MAX_BYTES

    async def gone():
        try:
            await bus.read(begin)
        except PositionLostError as error:
            return error.lost.until
        return None

    left = await gone()
    while left is None:
        left = await gone()
    read = await bus.read(left)
    assert read == list(range(200))[-len(read) :]
    assert 0 < len(read) < 150


@pytest_twisted.ensureDeferred
async def test_a_replay_hears_that_records_went_away_meanwhile(ageing):
    await ageing.emit(made(0))
    await ageing.emit(made(1))
    replay = await ageing.log.replay(ageing.log.tail.begin)
    await ageing.advance(61)
    await ageing.emit(made(2))
    with pytest.raises(PositionLostError) as caught:
        await replay.more()
    assert await ageing.read(caught.value.lost.until) == [2]
    replay.close()


@pytest_twisted.ensureDeferred
async def test_producers_wait_for_a_follower_that_has_too_much_in_hand(bus):
    wait = Deferred()
    follower, fired = Follower(bus.log, wait), []
    bus.intake.emit([made(1)]).addCallback(fired.append)
    await follower.until(1)
    assert not fired
    wait.callback(None)
    await until(lambda: fired)


@pytest_twisted.ensureDeferred
async def test_what_is_emitted_while_followers_are_served_comes_after(bus):
    class Answering(Follower):
        def received(self, record):
            super().received(record)
            if self.numbers[-1:] == [1]:
                bus.intake.emit([made(2)])

    one, other = Answering(bus.log), Follower(bus.log)
    bus.intake.emit([made(1)])
    assert await one.until(2) == [1, 2]
    assert await other.until(2) == [1, 2]


@pytest_twisted.ensureDeferred
async def test_a_follower_that_fails_harms_no_other(bus, logged_failures):
    class Failing(Follower):
        def received(self, record):
            raise ZeroDivisionError

    Failing(bus.log)
    other = Follower(bus.log)
    await bus.emit(made(1))
    assert await other.until(1) == [1]
    assert [failure.type for failure in logged_failures] == [ZeroDivisionError]
    logged_failures.clear()


@pytest_twisted.ensureDeferred
async def test_it_goes_on_where_it_was(durable):
    await durable.emit(made(1, id="a"), made(2, id="b"))
    middle = durable.log.tail.end._replace(place=1)
    term = durable.log.tail.end.term
    await durable.restart()
    follower = Follower(durable.log)
    assert durable.log.tail.end > middle
    await durable.emit(made(1, id="a"), made(3))
    assert await follower.until(1) == [3]
    assert follower.records[-1].term > term
    assert await durable.read(middle) == [2, 3]
