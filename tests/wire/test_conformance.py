"""The conformance cases of the Autobahn project, run by kosoku against an echo session with the server's own options."""

import json
import sys
from pathlib import Path

import pytest
import pytest_twisted
from support.wires import Server
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

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


@pytest.mark.seconds(180)
@pytest_twisted.ensureDeferred
async def test_the_conformance_cases_pass(tmp_path):
    server = Server()
    server.factory.protocol = type(
        "EchoWire", (Echo,), {k: v for k, v in vars(server.factory.protocol).items() if k[0] != "_"}
    )
    await server.start()
    # 9 sends megabytes, over the server's limit of a frame; 12 and 13 are compression, which is not offered.
    words = ["-m", "fuzzingclient", "-x", "9.*", "-x", "12.*", "-x", "13.*", "-o", str(tmp_path)]
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
    assert len(cases) > 200
    assert code == 0
    await server.stop()
