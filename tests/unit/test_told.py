"""Log lines about floods."""

from twisted.internet.task import Clock

from towerbus.worker.told import Told


def test_the_first_is_told_at_once_and_then_one_line_a_second():
    clock, lines = Clock(), []
    told = Told(clock, lambda count, what: lines.append((count, what)))
    told.add("a")
    assert lines == [(1, "a")]
    told.add("b")
    told.add("c")
    clock.advance(0.9)
    assert lines == [(1, "a")]
    clock.advance(0.2)
    assert lines == [(1, "a"), (2, "c")]
    told.close()


def test_after_a_while_of_silence_it_is_at_once_again():
    clock, lines = Clock(), []
    told = Told(clock, lambda count, what: lines.append((count, what)))
    told.add("a")
    clock.pump([1.0, 1.0])
    assert not clock.getDelayedCalls()
    told.add("b")
    assert lines == [(1, "a"), (1, "b")]
    told.close()


def test_what_is_left_is_told_at_the_end():
    clock, lines = Clock(), []
    told = Told(clock, lambda count, what: lines.append((count, what)))
    told.add("a")
    told.add("b")
    told.close()
    assert lines == [(1, "a"), (1, "b")]
    assert not clock.getDelayedCalls()
