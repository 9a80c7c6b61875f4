"""A WebSocket server that sends events in the framings that bench/load knows, to all its clients, and can be told to lie."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import zlib

HANDSHAKE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"  # for the key that the load generator uses
)


def mqtt(text):
    body = b"\0\4jobs" + text
    return b"\x30" + bytes([len(body) & 127 | 128, len(body) >> 7]) + body


FRAMINGS = {
    "plain": lambda text: text,
    "nats": lambda text: b"MSG jobs 1 %d\r\n%s\r\n" % (len(text), text),
    "mqtt": mqtt,
    "stomp": lambda text: b"MESSAGE\nsubscription:0\ncontent-length:%d\n\n%s\0\n" % (len(text), text),
    "engine.io": lambda text: b'42["event",%s]' % text,
}
"""How a text stands in a message."""

TORN = ("nats", "mqtt", "stomp")
"""Framings whose packets may go over the ends of messages."""

LIES = {
    "none": lambda texts: texts,
    "drop": lambda texts: [*texts[:2], *texts[3:]],
    "repeat": lambda texts: [*texts[:3], *texts[2:]],
    "swap": lambda texts: [texts[0], texts[2], texts[1], *texts[3:]],
    "change": lambda texts: [*texts[:2], texts[2][:100] + b"!" + texts[2][101:], *texts[3:]],
    "cut": lambda texts: [*texts[:2], texts[2][:-1], *texts[3:]],
    "nothing": lambda texts: [],
}
"""What the second client gets of some events."""


RETURNS = {
    "none": lambda texts: texts,
    "forget": lambda texts: texts[1:],
    "repeat": lambda texts: [*texts[:2], *texts[1:]],
    "swap": lambda texts: [texts[1], texts[0], *texts[2:]],
    "nothing": lambda texts: [],
}
"""What a client that comes back gets of what it missed."""


def deflated(text):
    """As RFC 7692 has a message, without context."""
    squeeze = zlib.compressobj(wbits=-15)
    return (squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


class _Server:
    """Clients come on one port, and lines with events on another; a context manager.

    Attributes:
        ws_port: Where clients come.
        control_port: Where lines with events come in.
    """

    def __init__(self):
        self._clients, self._connections = [], []
        self._listening = [_listening(handle) for handle in (self._client, self._control)]
        self.ws_port, self.control_port = (server.server_address[1] for server in self._listening)

    def __enter__(self):
        for server in self._listening:
            threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *reason):
        for server in self._listening:
            server.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for server in self._listening:
            server.server_close()


class ResumingServer(_Server):
    """It speaks as much of towerbus.v1 as clients that come back need; a context manager."""

    def __init__(self, lie="none", *, tells=False):
        """Say how it is to behave.

        Args:
            lie: One of `RETURNS`, for each client that comes back.
            tells: Whether it says that events are lost.
        """
        self._lie, self._tells = RETURNS[lie], tells
        self._log, self._lock = [], threading.Lock()
        super().__init__()

    def _client(self, connection):
        self._connections.append(connection)
        with contextlib.suppress(OSError), connection.makefile("rb") as said:
            while said.readline().strip():
                pass
            connection.sendall(HANDSHAKE + _message(b'{"accept":true,"user":1}'))
            while head := said.read(2):
                size = head[1] & 127
                size = int.from_bytes(said.read(2), "big") if size == 126 else size
                mask = said.read(4)
                words = bytes(byte ^ mask[at % 4] for at, byte in enumerate(said.read(size)))
                if head[0] & 15 == 1:
                    self._subscribe(connection, json.loads(words))

    def _subscribe(self, connection, words):
        with self._lock:
            since = int(words["since"]) if "since" in words else len(self._log)
            lost = b',"recovered":false,"lost":{"from":"1","to":"2","reason":"old"}' if self._tells else b""
            messages = [b'{"groups_current":["jobs-status_changed"],"position":"%d"%s}' % (since, lost)]
            if "since" in words:
                missed = [self._event(number) for number in range(since, len(self._log))]
                messages += [*self._lie(missed), b'{"position":"%d"}' % len(self._log)]
            connection.sendall(b"".join(map(_message, messages)))
            self._clients.append(connection)

    def _control(self, connection):
        self._connections.append(connection)
        with contextlib.suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                with self._lock:
                    self._log.append(line.removesuffix(b"\n"))
                    for client in self._clients:
                        with contextlib.suppress(OSError):
                            client.sendall(_message(self._event(len(self._log) - 1)))

    def _event(self, number):
        about = b'{"group":"jobs","type":"status_changed","position":"%d","id":"%d","time":1.5,"data":' % (
            number + 1,
            number,
        )
        return about + self._log[number] + b"}"


def _message(text):
    head = bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
    return b"\x81" + head + text


class FramedServer(_Server):
    """It runs in threads; a context manager."""

    def __init__(self, framing, lie="none", *, torn=False, together=4, compress=None):
        """Say how it is to behave.

        Args:
            framing: One of `FRAMINGS`.
            lie: One of `LIES`, for the second client.
            torn: Whether each packet goes over several messages.
            together: How many events are waited for before they go out.
            compress: What makes a compressed message of a text, where it compresses.
        """
        self._frame, self._lie, self._torn, self._together = FRAMINGS[framing], LIES[lie], torn, together
        self._compress = compress
        super().__init__()

    def _client(self, connection):
        self._connections.append(connection)
        said = b""
        while not said.endswith(b"\r\n\r\n"):
            said += connection.recv(4096)
        self._clients.append(connection)
        accepted = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n\r\n"
        connection.sendall(HANDSHAKE if self._compress is None else HANDSHAKE.removesuffix(b"\r\n") + accepted)
        with contextlib.suppress(OSError):
            while connection.recv(4096):
                pass

    def _control(self, connection):
        self._connections.append(connection)
        texts = []
        with contextlib.suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                texts.append(line.removesuffix(b"\n"))
                if len(texts) == self._together:
                    self._send(texts)
                    texts = []

    def _send(self, texts):
        for number, client in enumerate(self._clients):
            for text in self._lie(texts) if number == 1 else texts:
                with contextlib.suppress(OSError):  # it may have been cut
                    client.sendall(self._messages(self._frame(text)))

    def _messages(self, packet):
        if self._compress is not None:
            packet = self._compress(packet)
            return b"\xc1\x7e" + len(packet).to_bytes(2, "big") + packet
        parts = [packet[:7], packet[7:150], packet[150:]] if self._torn else [packet]
        return b"".join(b"\x82\x7e" + len(part).to_bytes(2, "big") + part for part in parts)


def _listening(handle):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            handle(self.request)

    return socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
