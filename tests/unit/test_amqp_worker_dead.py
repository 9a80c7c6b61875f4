"""Dead letters: kept as they were, but for what would do something when it is published again."""

from datetime import UTC, datetime

import pytest
from pika import BasicProperties

from towerbus.amqp.channel import Delivery
from towerbus.amqp.worker import dead

FRAME_MAX = 131_072


def letter(properties, reason="no JSON", frame_max=FRAME_MAX):
    delivery = Delivery(1, "jobs.x", False, properties, b"body", "towerbus")
    return dead.properties(delivery, reason, 1700.5, frame_max)


def read_back(properties):
    """As the broker's next reader gets them."""
    made = BasicProperties()
    made.decode(b"".join(properties.encode()))
    return made


def test_it_says_why_and_where_it_came_from():
    headers = read_back(letter(BasicProperties())).headers
    assert headers == {
        dead.REASON: "no JSON",
        dead.ROUTING_KEY: "jobs.x",
        dead.EXCHANGE: "towerbus",
        dead.TIME: 1700,
    }


def test_properties_are_kept():
    given = BasicProperties(
        content_type="text/x",
        content_encoding="gzip",
        headers={"a": 1, "b": [True, {"c": "d"}], "t": datetime(2026, 1, 1, tzinfo=UTC)},
        delivery_mode=1,
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=12,
        type="t",
        app_id="app",
    )
    made = read_back(letter(given))
    for name in (
        "content_type",
        "content_encoding",
        "priority",
        "correlation_id",
        "reply_to",
        "message_id",
        "timestamp",
    ):
        assert getattr(made, name) == getattr(given, name)
    assert (made.type, made.app_id) == ("t", "app")
    assert made.headers.items() >= given.headers.items()
    assert made.delivery_mode == 2


def test_what_would_do_something_again_is_kept_in_headers():
    given = BasicProperties(user_id="ada", expiration="100", headers={"CC": ["log"], "BCC": ["intake"]})
    made = read_back(letter(given))
    assert (made.user_id, made.expiration) == (None, None)
    assert not made.headers.keys() & {"CC", "BCC"}
    assert made.headers["towerbus-CC"] == ["log"]
    assert made.headers["towerbus-user-id"] == "ada"
    assert made.headers["towerbus-expiration"] == "100"


def deep():
    headers = {}
    for _ in range(3000):
        headers = {"a": headers}
    return headers


@pytest.mark.parametrize(
    "headers", [{"h": "x" * FRAME_MAX}, {"h": 1.5}, deep(), {"k" * 300: 1}], ids=["large", "float", "deep", "long key"]
)
def test_headers_that_cant_be_published_again_become_a_text(headers):
    made = read_back(letter(BasicProperties(headers=headers, message_id="m")))
    assert made.headers[dead.REASON] == "no JSON"
    assert len(made.headers[dead.HEADERS]) <= 500
    assert made.message_id == "m"


def test_the_agreed_size_of_a_frame_counts():
    headers = {"h": "x" * 5000}
    assert "h" in letter(BasicProperties(headers=headers)).headers
    made = letter(BasicProperties(headers=headers), "r" * 5000, frame_max=4096)
    assert "h" not in made.headers
    assert len(b"".join(made.encode())) < 4096 - 20
