"""`/debug/sessions`: for those who may see everything, and without a secret in it."""

import http.client
import json

import pytest
import pytest_twisted
from support.v1 import V1Client
from support.wires import EVERYTHING, Server, Table
from twisted.internet import reactor
from twisted.internet.defer import fail, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread

from towerbus.access import Grants, Identity
from towerbus.auth.interface import NotNow, Refused
from towerbus.ops.sessions import Sessions
from towerbus.web import site


def known():
    return {
        "good": Identity(7, "ada", EVERYTHING),
        "later": succeed(Identity(7, "ada", EVERYTHING)),
        "other": Identity("eve", grants=Grants(("jobs/*",), ("*",))),
        "expired": Refused("the token has expired"),
        "away": NotNow("the application does not answer"),
    }


class Judge(Table):
    """Knows one more, of whom it can't be said now: later than at once."""

    def authenticate(self, credential):
        if credential.secret == "failing":
            return fail(NotNow("the application does not answer"))
        return super().authenticate(credential)


class Pages:
    def __init__(self, server):
        self.site = site({b"debug/sessions": Sessions(server.factory, Judge(known()))}, reactor)

    async def __aenter__(self):
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.site)
        return self

    async def __aexit__(self, *reason):
        await self.port.stopListening()

    async def get(self, token="good", path="/debug/sessions", method="GET"):
        return await deferToThread(self._ask, token, path, method)

    def _ask(self, token, path, method):
        connection = http.client.HTTPConnection("127.0.0.1", self.port.getHost().port, timeout=10)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request(method, path, headers={"Connection": "close", **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@pytest_twisted.ensureDeferred
async def test_it_shows_who_is_connected_and_what_each_hears():
    server = await Server(authenticator=Table({"good": Identity(7, "ada"), "other": Identity("eve")})).start()
    client = await V1Client(server, {"jobs": ["x", "y"]}).connect()
    await client.live()
    tower = await server.client("/websocket/?token=other")
    await tower.until(1)
    raw = await server.client(handshake=False)
    async with Pages(server) as pages:
        status, said = await pages.get()
        assert (status, said["count"]) == (200, 3)
        by_user = {session["user"]: session for session in said["sessions"]}
        ada = by_user[7]
        assert (ada["name"], ada["dialect"], ada["state"]) == ("ada", "towerbus.v1", "open")
        assert ada["compressed"] is False
        assert (ada["topics"], ada["topics_count"], ada["outbox_bytes"]) == (["jobs-x", "jobs-y"], 2, 0)
        assert ada["peer"].startswith("127.0.0.1:")
        assert (by_user["eve"]["dialect"], by_user["eve"]["topics"]) == ("tower", [])
        assert by_user[None]["state"] == "handshake"
        assert "good" not in json.dumps(said)
        _, said = await pages.get(path="/debug/sessions?user=eve")
        assert [session["user"] for session in said["sessions"]] == ["eve"]
        _, said = await pages.get(path="/debug/sessions?limit=1")
        assert (said["count"], len(said["sessions"])) == (3, 1)
        assert (await pages.get(path="/debug/sessions?limit=many"))[0] == 400
        assert (await pages.get(path="/debug/"))[0] == (await pages.get(path="/debug/other"))[0] == 404
    raw.transport.abortConnection()
    await server.stop()


@pytest.mark.parametrize(
    ("token", "status"),
    [("", 401), ("unknown", 401), ("expired", 401), ("other", 403), ("away", 503), ("failing", 503), ("later", 200)],
)
@pytest_twisted.ensureDeferred
async def test_it_is_for_those_who_may_see_everything(token, status):
    server = await Server().start()
    async with Pages(server) as pages:
        assert (await pages.get(token))[0] == status
        assert (await pages.get(token, method="POST"))[0] == 405
    await server.stop()
