"""A receiver of webhooks, as an application has it: real HTTP, in a thread; it can refuse, and be gone."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hooks:
    """As a context manager it listens.

    Attributes:
        posts: What was posted, in order, and taken: headers and body.
        refused: The statuses that were answered instead, in order.
        answer: Called with the body that JSON says; returns the status to answer with.
    """

    def __init__(self, port=0):
        self.posts, self.refused = [], []
        self.answer = lambda said: 200
        hooks = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hooks.answer(json.loads(body))
                if status == 200:
                    hooks.posts.append((dict(self.headers), body))
                else:
                    hooks.refused.append(status)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self):
                self.send_response(405)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Be quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def events(self):
        """The events that were taken, in order."""
        return [event for _, body in self.posts for event in json.loads(body)["events"]]

    @property
    def numbers(self):
        return [event["payload"]["n"] for event in self.events]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
