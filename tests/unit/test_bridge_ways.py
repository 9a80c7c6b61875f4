"""The dead queue, as bridges use it."""

import pytest
from twisted.internet.defer import succeed

from towerbus.bridge.message import Message
from towerbus.bridge.ways import BRIDGE_HEADER, DeadQueue


class Letters:
    def __init__(self):
        self.found = []

    def bury(self, letter):
        self.found.append(letter)
        return succeed(None)


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (Message(b"x", routing_key="a.b.c"), "a.b.c"),
        (Message(b"x", routing_key="a.b", group="jobs", type="x"), "a.b"),
        (Message(b"x", group="jobs", type="x"), "jobs.x"),
        (Message(b"x"), ""),
    ],
)
def test_a_letter_says_for_which_topic_it_was(message, key):
    """A row of an outbox and a post have no routing key; without one nobody could tell, or put it on the bus again."""
    letters = Letters()
    DeadQueue(letters).bury(message, "too large", "outbox")
    assert letters.found[0].routing_key == key
    assert letters.found[0].headers[BRIDGE_HEADER] == "outbox"
