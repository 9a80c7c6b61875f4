"""The spool: durable, in order, bounded, and honest when the disk fails."""

import sqlite3

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyClass

from towerbus.bridge.spool import Spool, open_spool
from towerbus.bridge.spool_file import OVERHEAD, SpoolFile
from towerbus.errors import BusUnavailable, NoRoom, TowerbusError
from towerbus.event import event
from towerbus.intake.interface import IIntake


def some(begin, count, size=10):
    return [
        event("jobs", "x", b'{"n":"%s"}' % (b"%d" % n).rjust(size), id=f"n{n}") for n in range(begin, begin + count)
    ]


def opened(path, max_bytes=1024 * 1024):
    from twisted.internet import reactor

    return open_spool(path / "spool.db", reactor, "spool-test", max_bytes)


def ids(spooled):
    return [each.event.id for each in spooled]


def test_it_is_an_intake():
    verifyClass(IIntake, Spool)


@ensureDeferred
async def test_what_was_taken_is_there_after_a_restart_in_order_and_once(tmp_path):
    spool = await opened(tmp_path)
    given = some(0, 50)
    await gatherResults([spool.emit(given[:20]), spool.emit(given[20:]), spool.emit(given[5:25])])
    assert (spool.events, spool.bytes) == (50, sum(len(each.payload) + OVERHEAD for each in given))
    await spool.close()
    spool = await opened(tmp_path)
    assert (spool.events, spool.bytes) == (50, sum(len(each.payload) + OVERHEAD for each in given))
    taken = await spool.first(30, 10**6)
    assert [each.event for each in taken] == given[:30]
    await spool.remove(taken)
    assert ids(await spool.first(100, 10**6)) == [f"n{n}" for n in range(30, 50)]
    assert spool.events == 20
    await spool.close()


@ensureDeferred
async def test_pieces_are_bounded_in_bytes_and_one_event_may_be_larger(tmp_path):
    spool = await opened(tmp_path)
    await spool.emit(some(0, 3, 1000))
    assert len(await spool.first(10, 2500)) == 2
    assert len(await spool.first(10, 1)) == 1
    await spool.close()


@ensureDeferred
async def test_whoever_reads_waits_for_the_first(tmp_path):
    from twisted.internet.defer import Deferred

    spool = await opened(tmp_path)
    waiting = Deferred.fromCoroutine(spool.first(10, 1000))
    assert not waiting.called
    await spool.emit(some(0, 1))
    assert ids(await waiting) == ["n0"]
    await spool.close()


@ensureDeferred
async def test_a_full_spool_refuses_and_takes_again_when_there_is_room(tmp_path):
    spool = await opened(tmp_path, 10 * (OVERHEAD + 18))
    told = []
    spool.on_trouble = told.append
    await spool.emit(some(0, 9))
    with pytest.raises(BusUnavailable, match="the spool is full") as caught:
        await spool.emit(some(9, 2))
    assert (caught.value.sure, caught.value.ids, spool.refused) == (True, ("n9", "n10"), 2)
    assert "full" in spool.trouble
    await spool.remove(await spool.first(1, 1000))
    assert (spool.trouble, len(told)) == ("", 2)
    await spool.emit(some(9, 2))
    await spool.close()


@ensureDeferred
async def test_what_is_not_written_yet_counts_as_well(tmp_path):
    spool = await opened(tmp_path, 10 * (OVERHEAD + 18))
    first, second = spool.emit(some(0, 6)), spool.emit(some(6, 6))
    await first
    with pytest.raises(BusUnavailable):
        await second
    await spool.close()


@ensureDeferred
async def test_a_disk_that_fails_is_told_and_nothing_is_called_taken(tmp_path):
    spool = await opened(tmp_path)
    await spool.emit(some(0, 1))
    other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # What a producer is told: not that the bus is away.
    with pytest.raises(NoRoom, match="can't be written") as caught:
        await spool.emit(some(1, 1))
    assert caught.value.sure
    other.execute("ROLLBACK")
    other.close()
    await spool.emit(some(1, 1))
    assert ids(await spool.first(10, 1000)) == ["n0", "n1"]
    await spool.close()


@ensureDeferred
async def test_after_its_end_it_takes_nothing(tmp_path):
    spool = await opened(tmp_path)
    late = spool.emit(some(0, 1))
    waits = spool.emit(some(1, 1))
    await spool.close()
    await late
    with pytest.raises(BusUnavailable, match="stopping"):
        await waits
    with pytest.raises(BusUnavailable, match="stopping"):
        await spool.emit(some(2, 1))


@ensureDeferred
async def test_a_file_of_another_program_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "spool.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(TowerbusError, match="another program"):
        await opened(tmp_path)
    assert path.read_bytes() == before
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(TowerbusError, match="spool"):
        await opened(tmp_path)


def test_a_file_of_another_edition_is_refused(tmp_path):
    path = tmp_path / "spool.db"
    SpoolFile(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 9")
    other.close()
    with pytest.raises(TowerbusError, match="another edition"):
        SpoolFile(path)


@ensureDeferred
async def test_a_file_that_is_removed_under_it_takes_no_more_and_what_it_held_is_forwarded(tmp_path):
    """What went into it would be lost with this process, although it was acknowledged."""
    spool = await opened(tmp_path)
    await spool.emit(some(0, 2))
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(NoRoom, match="moved or removed") as refused:
        await spool.emit(some(2, 1))
    assert refused.value.sure
    assert str(tmp_path) not in refused.value.reason, "producers are not told of files"
    assert str(tmp_path) in spool.trouble
    taken = await spool.first(10, 10**6)
    assert ids(taken) == ["n0", "n1"]
    await spool.remove(taken)
    with pytest.raises(TowerbusError, match="a new one is made"):
        await spool.first(10, 10**6)
    await spool.close()
    spool = await opened(tmp_path)
    await spool.emit(some(3, 1))
    assert ids(await spool.first(10, 10**6)) == ["n3"]
    await spool.close()


@ensureDeferred
async def test_an_empty_spool_whose_file_is_removed_ends_its_life_at_the_next_event(tmp_path):
    spool = await opened(tmp_path)
    waiting = Deferred.fromCoroutine(spool.first(10, 10**6))
    (tmp_path / "spool.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(NoRoom):
        await spool.emit(some(0, 1))
    with pytest.raises(TowerbusError, match="a new one is made"):
        await waiting
    await spool.close()


@ensureDeferred
async def test_a_damaged_spool_says_what_to_do_about_a_spool(tmp_path):
    spool = await opened(tmp_path)
    await spool.emit(some(0, 500, 1000))
    await spool.close()
    file = tmp_path / "spool.db"
    whole = file.read_bytes()
    for damaged in (b"x" * 5000, whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(TowerbusError, match="move it away, and a new one is made"):
            await opened(tmp_path)
