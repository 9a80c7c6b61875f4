"""Receive webhooks: check the signature, pass over what was seen before, and print the rest.

Run it with the secret of the bridge in HOOK_SECRET. An application would keep the ids that it has seen beside what it
does with the events.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE = 300
"""Seconds that a batch may be old."""
SECRET = os.environ["HOOK_SECRET"]
KEY = base64.b64decode(SECRET[6:]) if SECRET.startswith("whsec_") else SECRET.encode()

seen: set[str] = set()


class Receiver(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_HEAD(self) -> None:
        """Say that it is there, as `towerbus doctor` asks."""
        self.send_response(204)
        self.end_headers()

    def do_POST(self) -> None:
        """Take a batch."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        id_, at = self.headers["webhook-id"] or "", self.headers["webhook-timestamp"] or "0"
        signature = base64.b64encode(hmac.digest(KEY, f"{id_}.{at}.".encode() + body, "sha256")).decode()
        good = hmac.compare_digest(f"v1,{signature}", self.headers["webhook-signature"] or "")
        if not good or abs(time.time() - int(at)) > TOLERANCE:
            self.send_error(401)
            return
        for event in json.loads(body)["events"]:
            if event["id"] not in seen:
                seen.add(event["id"])
                print(event["group"], event["type"], json.dumps(event["payload"]), flush=True)
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Receiver).serve_forever()
