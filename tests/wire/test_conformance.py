"""The conformance cases of the Autobahn project, run by kosoku against an echo session with the server's own options."""

import json
import sys
from pathlib import Path

import pytest
import pytest_twisted
from support.wires import Server
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from towerbus.wire import insides
from towerbus.wire.deflate import Deflater
from towerbus.wire.frames import text_frame
from towerbus.wire.websocket import EventsProtocol


class Echo(EventsProtocol):
    """Says back what it is told; everything below the session is the server's."""

    def onConnect(self, request):
        return None

    def onOpen(self):
        pass

    def onMessage(self, payload, isBinary):
        if isBinary:
            self.sendFrame(opcode=2, payload=payload)
        else:
            self.outlet.write(text_frame(payload))


class DeflatingEcho(Echo):
    """Says it back compressed, where the client has agreed to that."""

    deflater = Deflater()

    def onConnect(self, request):
        taken = self.take_offer(compression=True)
        return None if taken is None else (None, {"Sec-WebSocket-Extensions": taken})

    def onMessage(self, payload, isBinary):
        if self.deflates and not isBinary:
            self.outlet.write(self.deflater.frame(payload))
        else:
            super().onMessage(payload, isBinary)


@pytest.mark.seconds(180)
@pytest.mark.parametrize("way", ["short", "long"])
@pytest_twisted.ensureDeferred
async def test_the_conformance_cases_pass(tmp_path, monkeypatch, way):
    if way == "long":
        # What comes whole in one frame goes through Autobahn's parser, as all the rest does.
        monkeypatch.setattr(insides, "whole_text", lambda *_: None)
        monkeypatch.setattr(insides, "is_pong", lambda _: False)
    # 9 sends megabytes, over the server's limit of a frame; 12 and 13 are compression, which is not offered here.
    cases = await run(tmp_path, Server(), Echo, "-x", "9.*", "-x", "12.*", "-x", "13.*")
    assert len(cases) > 200


@pytest.mark.long
@pytest.mark.seconds(180)
@pytest_twisted.ensureDeferred
async def test_the_conformance_cases_of_compression_pass(tmp_path):
    # Some of each kind: whole messages and cut ones, an offer, and three of which the first can't be taken.
    some = [f"{kind}.{size}" for kind in ("12.1", "13.4", "13.7") for size in (3, 5, 9, 10, 11, 18)]
    words = [word for case in some for word in ("-i", case)]
    cases = await run(tmp_path, Server(deflater=Deflater(), max_frame=256 * 1024), DeflatingEcho, *words)
    assert len(cases) == len(some)
    assert {verdict["behavior"] for verdict in cases.values()} == {"OK"}


async def run(tmp_path, server, echo, *which):
    """Run cases against an echo; returns the verdicts, of which none is bad."""
    server.factory.protocol = type(
        "EchoWire", (echo,), {k: v for k, v in vars(server.factory.protocol).items() if k[0] != "_"}
    )
    await server.start()
    words = ["-m", "fuzzingclient", *which, "-o", str(tmp_path)]
    out, err, code = await getProcessOutputAndValue(
        str(Path(sys.executable).with_name("kosoku")),
        [*words, f"127.0.0.1:{server.port.getHost().port}/websocket/"],
        reactor=reactor,
    )
    index = json.loads((tmp_path / "index.json").read_text())
    ((_, cases),) = index.items()
    bad = {
        case: verdict["behavior"]
        for case, verdict in cases.items()
        if verdict["behavior"] not in {"OK", "INFORMATIONAL", "NON-STRICT"}
    }
    assert not bad, (bad, out[-2000:], err[-2000:])
    assert code == 0
    await server.stop()
    return cases
