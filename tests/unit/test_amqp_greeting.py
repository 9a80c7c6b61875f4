"""The first byte of a peer tells a broker from something else."""

from hypothesis import given
from hypothesis import strategies as st

from towerbus.amqp.errors import NotAmqp
from towerbus.amqp.greeting import expect_amqp


class Connection:
    """Takes bytes as pika's does."""

    def __init__(self):
        self.taken, self.ended = b"", []

    def _on_data_available(self, data):
        self.taken += data

    def _terminate_stream(self, error):
        self.ended.append(error)


@given(st.sampled_from([b"\x01", b"A"]), st.lists(st.binary()))
def test_a_brokers_bytes_all_pass(first, more):
    connection = Connection()
    expect_amqp(connection)
    for data in (first, *more):
        connection._on_data_available(data)
    assert connection.taken == first + b"".join(more)
    assert connection.ended == []


@given(st.binary(min_size=1).filter(lambda data: data[:1] not in {b"\x01", b"A"}))
def test_anything_else_ends_the_connection_with_what_was_said(data):
    connection = Connection()
    expect_amqp(connection)
    connection._on_data_available(data)
    (error,) = connection.ended
    assert isinstance(error, NotAmqp)
    assert "TLS" in str(error)
    assert len(str(error)) < 200
    assert connection.taken == b""
