"""The sink `webhook`: what is told of a receiver's answers, and of a time in which it took nothing."""

import base64

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from towerbus.auth.asking import Answer
from towerbus.bridge.interface import Outgoing, Surroundings
from towerbus.bridge.sinks import webhook
from towerbus.event import event
from towerbus.positions import Position

PAGE = b"""<!DOCTYPE HTML>
<html><head><title>Error response</title><style>p { color: red }</style></head>
<!-- a comment --><body><h1>Error response</h1><p class="x">Error code: 401</p></body></html>"""


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (401, PAGE, "401 Unauthorized: Error response Error code: 401"),
        (404, b"Not Found\n", "404 Not Found"),
        (409, b'{"error": "twice"}', '409 Conflict: {"error": "twice"}'),
        (302, b"", "302 Found"),
        (599, b"", "599"),
        (503, b"\x1b[31mred\x1b[0m\r\nsecond\x00 line \xff", "503 Service Unavailable: [31mred [0m second line \ufffd"),
        (500, b"<" * 100_000, None),
        (500, b"<head>" * 20_000, None),
        (500, b"a " * 100_000, None),
    ],
)
def test_an_answer_is_told_in_one_short_line_of_plain_text(status, body, shown):
    told = webhook.told(status, body)
    assert shown is None or told == shown
    assert len(told) < 180
    assert told.isprintable()


class Server:
    """A receiver that answers as it is told to."""

    shown = "http://h/"

    def __init__(self, *answers):
        self.answers = list(answers)

    def ask(self, method, headers, body):
        return succeed(self.answers.pop(0))


class Outflow:
    """What a sink says."""

    def __init__(self):
        self.troubles, self.buried = [], []

    def trouble(self, text):
        self.troubles.append(text)

    def bury(self, outgoing, reason):
        self.buried.append((outgoing.event.id, reason))
        return succeed(None)


def delivering(*answers, retry=0.0):
    options = webhook.Options(url="http://h/", secret=base64.b64encode(bytes(30)).decode(), retry_seconds=retry)
    clock, outflow = Clock(), Outflow()
    sink = webhook.WebhookSink(options, Surroundings("hook", clock, None, 1000), Server(*answers))
    batch = [Outgoing(event("jobs", "x", b'{"n":1}', id=f"n{n}"), Position("e", 1, n, 0)) for n in range(2)]
    return sink._deliver(batch, outflow), outflow


@ensureDeferred
async def test_while_nothing_is_taken_it_is_told_that_events_were_given_up():
    delivery, outflow = delivering(Answer(500, PAGE))
    await delivery
    assert [each for each, _ in outflow.buried] == ["n0", "n1"]
    assert outflow.troubles[-1].startswith("nothing is taken; after 0 s 2 events went to the dead queue: http://h/ ")
    assert "answered 500 Internal Server Error" in outflow.troubles[-1]


@ensureDeferred
async def test_whoever_refuses_one_event_answers_so_nothing_is_wrong_any_more():
    delivery, outflow = delivering(Answer(413, b""), Answer(204, b""), Answer(413, b""))
    await delivery
    assert [each for each, _ in outflow.buried] == ["n1"]
    assert outflow.troubles[-1] == ""
