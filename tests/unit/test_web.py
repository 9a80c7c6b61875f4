"""The HTTP listener's site: what stands where, and how answers look."""

import pytest
import pytest_twisted
from support.posts import Listener
from support.wires import until
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Request

from towerbus import web


class Ready(Resource):
    """Another resource beside /emit."""

    isLeaf = True

    def render(self, request: Request):
        return web.answer(request, 200, {"ready": True})


@pytest_twisted.ensureDeferred
async def test_other_resources_stand_beside_emit():
    listener = await Listener().start(children={b"readyz": Ready()})
    client = await listener.client()
    for path, code in (("/readyz", 200), ("/emit", 405), ("/", 404), ("/x/emit", 404), ("/emitx", 404), ("//", 404)):
        client.post(b"", method="GET", path=path)
        assert (await client.answer())[0] == code
    await listener.stop()


@pytest.mark.parametrize(
    ("code", "header"), [(401, "WWW-Authenticate: Bearer"), (429, "Retry-After: 1"), (503, "Retry-After: 1")]
)
@pytest_twisted.ensureDeferred
async def test_answers_are_json_and_say_what_to_do(code, header):
    class Refusing(Resource):
        def render(self, request):
            return web.error(request, code, 'it is "full"')

    listener = await Listener().start(children={b"full": Refusing()})
    client = await listener.client()
    client.post(b"", method="GET", path="/full")
    got, answer, head = await client.answer()
    assert (got, answer) == (code, {"error": 'it is "full"'})
    assert header in head
    assert "Content-Type: application/json" in head
    client.post(b"", method="HEAD", path="/full")
    await until(lambda: client.data.endswith(b"\r\n\r\n"))
    assert client.data.startswith(b"HTTP/1.1 %d " % code)
    client.data = b""
    client.post(b"", method="GET", path="/full")
    assert (await client.answer())[0] == code, "the connection is kept"
    await listener.stop()


def test_only_http_1_is_spoken_and_no_line_is_logged():
    site = web.site({b"readyz": Ready()}, reactor)
    assert site.acceptableProtocols() == [b"http/1.1"]
    assert site.log(None) is None
    assert site.logPath is None
