"""What a source forwards: mapped, in order, with the same ids until it is confirmed."""

import msgspec
import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyClass

from towerbus.bridge.feed import PIECE, Feed
from towerbus.bridge.interface import IFeed
from towerbus.bridge.mapping import Mapping, MappingOptions
from towerbus.bridge.message import Message
from towerbus.bridge.standing import Standing, Title
from towerbus.errors import BusUnavailable, NotConfirmed
from towerbus.intake.interface import IIntake


@implementer(IIntake)
class Bus:
    """An intake that answers as it is told, and a dead queue."""

    def __init__(self, **options):
        self.answers, self.emits, self.letters = [], [], []
        self.clock = Clock()
        self.standing = Standing(Title("b", "source", "test"))
        mapping = Mapping(msgspec.convert(options, MappingOptions))
        self.feed = Feed(self.standing, mapping, self, self, self.clock)

    def emit(self, events):
        self.emits.append([event.id for event in events])
        return self.answers.pop(0) if self.answers else succeed(None)

    def bury(self, message, reason, bridge):
        self.letters.append((message.id, reason, bridge))
        return succeed(None)


def messages(*numbers, body=b'{"n":1}'):
    return [Message(body, id=f"m{number}", routing_key="jobs.x") for number in numbers]


def test_it_is_a_feed():
    verifyClass(IFeed, Feed)


def test_it_is_told_when_all_is_confirmed():
    bus, confirmed = Bus(), Deferred()
    bus.answers = [confirmed]
    done = bus.feed.forward(messages(1, 2))
    assert bus.emits == [["m1", "m2"]]
    assert not done.called
    confirmed.callback(None)
    assert done.called
    assert (bus.standing.counts.messages, bus.standing.counts.events) == (2, 2)


def test_what_was_not_confirmed_is_emitted_again_with_the_same_ids_however_long_it_takes():
    bus = Bus()
    nameless = [Message(b'{"n":1}', routing_key="jobs.x")]
    bus.answers = [
        fail(BusUnavailable("away")),
        fail(NotConfirmed("who knows")),
        *(fail(BusUnavailable("away")) for _ in range(50)),
    ]
    done = bus.feed.forward(nameless)
    for _ in range(60):
        bus.clock.advance(1)
    assert done.called
    assert len(bus.emits) == 53
    assert len({ids[0] for ids in bus.emits}) == 1, "an id that was made stays the same"


def test_pieces_wait_for_each_other():
    bus, first = Bus(), Deferred()
    bus.answers = [first]
    done = bus.feed.forward(messages(*range(PIECE + 1)))
    assert [len(ids) for ids in bus.emits] == [PIECE]
    first.callback(None)
    assert [len(ids) for ids in bus.emits] == [PIECE, 1]
    assert done.called


def test_what_is_filtered_or_buried_counts_as_forwarded():
    bus = Bus(filter=[{"value": "{id}", "not_in": ["m1"]}])
    given = messages(1, 2) + messages(3, body=b"no JSON") + messages(4)
    assert bus.feed.forward(given).called
    assert bus.emits == [["m2", "m4"]]
    ((id_, reason, bridge),) = bus.letters
    assert (id_, bridge) == ("m3", "b")
    assert "not a JSON object" in reason
    counts = bus.standing.counts
    assert (counts.messages, counts.filtered, counts.dead, counts.events) == (4, 1, 1, 2)
    assert bus.feed.forward(messages(1)).called, "nothing to emit"
    assert bus.feed.forward([]).called


def test_a_fault_of_the_mappings_buries_one_message_and_stops_nothing(logged_failures):
    bus = Bus()
    assert bus.feed.forward([*messages(1), Message(None, id="m2", routing_key="jobs.x"), *messages(3)]).called
    assert bus.emits == [["m1", "m3"]]
    assert "internal error" in bus.letters[0][1]
    assert len(logged_failures) == 1
    logged_failures.clear()


def test_one_batch_after_the_other():
    bus, first = Bus(), Deferred()
    bus.answers = [first]
    done = bus.feed.forward(messages(1))
    with pytest.raises(RuntimeError):
        bus.feed.forward(messages(2))
    done.addErrback(lambda failure: failure.trap(CancelledError))
    done.cancel()
    assert bus.feed.forward(messages(2)).called
