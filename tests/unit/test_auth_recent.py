"""Bounded memory, and one question at a time."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from towerbus.auth.recent import Recent, Shared


def test_a_value_holds_until_its_moment():
    clock = Clock()
    recent = Recent(10, clock.seconds)
    recent.put("a", False, 5)
    clock.advance(4.9)
    assert recent.get("a") is False
    clock.advance(0.1)
    assert recent.get("a") is None
    assert len(recent) == 0


def test_of_too_many_the_one_used_longest_ago_goes():
    recent = Recent(2, Clock().seconds)
    for key in "ab":
        recent.put(key, key, 1)
    assert recent.get("a") == "a"
    recent.put("c", "c", 1)
    assert [recent.get(key) for key in "abc"] == ["a", None, "c"]
    recent.put("a", "A", 1)
    assert len(recent) == 2
    recent.clear()
    assert len(recent) == 0


def test_one_question_for_all_who_wait():
    shared, questions, told = Shared(), [], []

    def question():
        questions.append(Deferred())
        return questions[-1]

    first, second = shared.ask("a", question), shared.ask("a", question)
    third = shared.ask("b", question)
    assert len(questions) == 2
    for waiter in (first, second, third):
        waiter.addCallback(told.append)
    questions[0].callback("yes")
    assert told == ["yes", "yes"]
    shared.ask("a", question)
    assert len(questions) == 3


def test_who_gives_up_takes_nothing_from_the_others():
    shared, question, told, cancelled = Shared(), Deferred(), [], []
    first, second = (shared.ask("a", lambda: question) for _ in range(2))
    first.addErrback(lambda failure: cancelled.append(failure.type))
    second.addCallback(told.append)
    first.cancel()
    assert not question.called
    question.callback(1)
    assert (told, cancelled) == ([1], [CancelledError])


def test_a_failure_reaches_all():
    shared, question, types = Shared(), Deferred(), []
    for _ in range(2):
        shared.ask("a", lambda: question).addErrback(lambda failure: types.append(failure.type))
    question.errback(OSError("x"))
    assert types == [OSError, OSError]
