"""A replay of the embedded log: from the file, then from memory, without a seam."""

import pytest
import pytest_twisted
from contract.buses import made, numbers
from twisted.internet import reactor

from towerbus.log import sqlite_replay
from towerbus.log.pieces import in_tail
from towerbus.log.sqlite import SqliteLog


@pytest_twisted.async_yield_fixture
async def log(tmp_path):
    log = SqliteLog(tmp_path / "bus.db", reactor, tail_bytes=300_000)
    log.startService()
    yield log
    await log.stopService()


@pytest_twisted.ensureDeferred
async def test_it_reads_the_file_and_then_memory_with_no_event_twice_or_missing(log, monkeypatch):
    monkeypatch.setattr(sqlite_replay, "PIECE", 50_000)
    begin = log.tail.begin
    for number in range(24):
        await log.emit([made(number, size=40_000)])
    assert not in_tail(log.tail, begin)
    replay = await log.replay(begin)
    pieces, reads = [], []
    run = replay._run
    replay._run = lambda function, *args: reads.append(len(pieces)) or run(function, *args)
    while records := await replay.more():
        pieces.append(numbers(records))
        if len(pieces) == 2:
            await log.emit([made(24, size=40_000)])
    assert [number for piece in pieces for number in piece] == list(range(25))
    assert reads, "the first come from the file"
    assert reads[-1] < len(pieces) - 1, "the last from memory"
    assert all(len(piece) <= 2 for number, piece in enumerate(pieces) if number not in reads)


@pytest_twisted.ensureDeferred
async def test_a_position_that_only_the_file_can_judge_is_not_in_the_tail(log):
    await log.emit([made(1)])
    end = log.tail.end
    assert in_tail(log.tail, end)
    assert not in_tail(log.tail, end._replace(epoch="ff"))
    assert not in_tail(log.tail, end._replace(offset=end.offset + 1))


@pytest.mark.parametrize("after", [0, 1])
@pytest_twisted.ensureDeferred
async def test_closing_twice_does_no_harm(log, after):
    replay = await log.replay(log.tail.begin)
    for _ in range(after):
        await replay.more()
    replay.close()
    replay.close()
