"""Letters for the dead queue: they are such as a broker takes."""

from twisted.internet.task import Clock

from towerbus.amqp.burying import MAX_BODY, SIZE, DeadLetters, Letter
from towerbus.amqp.service import State
from towerbus.amqp.url import parse


class Channel:
    """Takes what RabbitMQ 4 takes as it is installed."""

    def __init__(self):
        self.taken = []

    async def confirm(self):
        pass

    async def declare_exchange(self, name, kind, *, passive):
        pass

    async def publish(self, exchange, key, body, properties):
        assert len(body) <= 16 * 1024 * 1024
        self.taken.append((body, properties.headers))


class Connection:
    frame_max = 131072

    def __init__(self):
        self.opened = Channel()

    async def channel(self):
        return self.opened


def test_a_body_that_no_broker_would_take_is_cut_and_holds_up_nothing():
    letters = DeadLetters(parse("amqp://h/"), Clock())
    letters.state = State.ESTABLISHED
    large, small = (letters.bury(Letter(body, "because", {})) for body in (b"x" * (MAX_BODY + 1), b"y" * MAX_BODY))
    connection = Connection()
    try:
        letters._bury_all(connection, lambda: None).send(None)
    except StopIteration:
        pass
    assert large.called
    assert small.called
    (cut, headers), (whole, others) = connection.opened.taken
    assert (len(cut), headers[SIZE]) == (MAX_BODY, MAX_BODY + 1)
    assert (len(whole), SIZE in others) == (MAX_BODY, False)
