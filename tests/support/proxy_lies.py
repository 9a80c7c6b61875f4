"""A proxy before a WebSocket that lies: it drops, repeats, swaps, changes or misdirects one event of one client, or cuts it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from urllib.parse import urlsplit

TEXT = 0x81
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class LyingProxy:
    """Forwards to a server, in threads, and lies once: `with LyingProxy(url, "drop") as proxy`.

    Attributes:
        url: The WebSocket's, through the proxy.
        told: How many lies it has told.
        peers: The addresses that have connected.

    The lie is about an event that another client has got already, and the third of its client or a later one. A lie that
    takes two frames takes the next as well.
    """

    def __init__(self, url, lie="tell_the_truth", begins=b'{"run":'):
        parts = urlsplit(url)
        self._to = (parts.hostname, parts.port)
        self._lie, self._begins = getattr(self, f"_{lie}"), begins
        self._lock, self._liar, self._seen, self.told = threading.Lock(), None, {}, 0
        self.peers = set()
        self._refusing_until = 0.0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._sockets = [self._listening]
        self.url = url.replace(f":{parts.port}", f":{self._listening.getsockname()[1]}")
        self._threads = []

    def __enter__(self):
        self._begin(self._accept)
        return self

    def __exit__(self, *reason):
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _begin(self, what, *given):
        thread = threading.Thread(target=what, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, (peer, _) = self._listening.accept()
                self.peers.add(peer)
                if time.monotonic() < self._refusing_until:
                    self._sockets.append(client)
                    self._begin(self._refuse, client)
                    continue
                server = socket.create_connection(self._to)
                self._sockets += [client, server]
                self._begin(self._up, client, server)
                self._begin(self._down, server, client)

    def _refuse(self, client):
        with contextlib.suppress(OSError):
            stream = client.makefile("rb")
            while stream.readline().strip():
                pass
            client.sendall(REFUSAL)
            client.shutdown(socket.SHUT_RDWR)

    def _up(self, client, server):
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _down(self, server, client):
        with contextlib.suppress(OSError):
            stream = server.makefile("rb")
            while (line := stream.readline()) != b"\r\n":
                client.sendall(line)
            client.sendall(line)
            events, kept = 0, []
            while frame := _frame(stream):
                if frame[0] != TEXT or self._begins not in frame[:20]:
                    client.sendall(frame)
                    continue
                events += 1
                for each in self._told(client, frame, events, kept):
                    client.sendall(each)
            client.shutdown(socket.SHUT_WR)

    def _told(self, client, frame, number, kept):
        """What is sent on for an event."""
        with self._lock:
            again = any(frame in seen for seen in self._seen.values())
            self._seen.setdefault(client, set()).add(frame)
            if self._liar is None and number >= 3 and again:
                self._liar = client
            if self._liar is not client or self.told:
                return [frame]
            made = self._lie(client, frame, kept)
            self.told += made != [frame] and not kept
            return made

    def _tell_the_truth(self, client, frame, kept):
        return [frame]

    def _drop(self, client, frame, kept):
        return []

    def _repeat(self, client, frame, kept):
        return [frame, frame]

    def _swap(self, client, frame, kept):
        if not kept:
            kept.append(frame)
            return []
        return [frame, kept.pop()]

    def _change(self, client, frame, kept):
        at = frame.rindex(b'"}') - 1
        return [frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]]

    def _displace(self, client, frame, kept):
        at = frame.index(b'"position":"') + 12
        return [frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]]

    def _misdirect(self, client, frame, kept):
        """One that goes to clients with other topics only."""
        others = [next(iter(seen)) for seen in self._seen.values() if not seen & self._seen[client]]
        return [frame, others[0]] if others else [frame]

    def _invent(self, client, frame, kept):
        return [frame, b'\x81\x0a{"hm":"x"}']

    def _invent_another_runs(self, client, frame, kept):
        return [frame, _text(b'{"run":"deadbeef","number":3,"text":"x"}')]

    def _greet_again(self, client, frame, kept):
        return [frame, _text(b'{"accept":true,"user":1}')]

    def _tell_a_position(self, client, frame, kept):
        return [frame, _text(b'{"position":"zz"}')]

    def _change_a_key(self, client, frame, kept):
        at = frame.index(b'"group"') + 1
        return [frame[:at] + b"h" + frame[at + 1 :]]

    def _tell_a_position_ahead(self, client, frame, kept):
        """One that has the form of one, of a place in the log to which no event has come yet."""
        epoch, term, offset, place = _value(frame, "position").split("-")
        return [frame, _text(f'{{"position":"{epoch}-{term}-{int(offset) + 10**6}-{place}"}}'.encode())]

    def _postdate(self, client, frame, kept):
        at = frame.index(b'"time":') + 7
        return [frame[:at] + bytes([frame[at] ^ 3]) + frame[at + 1 :]]

    def _dismiss(self, client, frame, kept):
        return [frame, _text(b'{"close": true}')]

    def _dismiss_by_code(self, client, frame, kept):
        return [frame, _text(b'{"error":"it has expired","code":"not_authenticated"}')]

    def _drop_and_close(self, client, frame, kept):
        """Nothing of one event; the next, and the close of one who reads slowly."""
        if not kept:
            kept.append(frame)
            return []
        kept.clear()
        return [frame, _close(1013)]

    def _starve(self, client, frame, kept):
        """Nothing more, though the connection stays."""
        kept.append(frame)
        return []

    def _starve_and_close(self, client, frame, kept):
        """Nothing of ten events, and the close of one who reads slowly."""
        kept.append(frame)
        if len(kept) < 10:
            return []
        kept.clear()
        return [_close(4408)]

    def _shut(self, client, frame, kept):
        """Let nobody in any more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        return [frame, b""]

    def _shut_for_a_while(self, client, frame, kept):
        """Refuse everybody for a second and a half, as a proxy does whose backend restarts."""
        self._refusing_until = time.monotonic() + 1.5
        return [frame, b""]

    def _cut(self, client, frame, kept):
        client.shutdown(socket.SHUT_RDWR)
        return [b""]


class SeamProxy(LyingProxy):
    """Lies where a set is replaced: it keeps what comes while a client waits for a reply, and drops the last of it where
    that is an event of a topic which the reply says is left."""

    def __init__(self, url):
        super().__init__(url, begins=b'{"group')
        self._asking = set()

    def _up(self, client, server):
        with contextlib.suppress(OSError):
            server.sendall(client.recv(65536))
            while data := client.recv(65536):
                with self._lock:
                    self._asking.add(client)
                # The server has time for some events before it hears of it.
                time.sleep(0.2)
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _told(self, client, frame, number, kept):
        with self._lock:
            if b'"groups_current"' not in frame[:30]:
                if client not in self._asking:
                    return [frame]
                kept.append(frame)
                return []
            self._asking.discard(client)
            left = _value(frame, "groups_left")
            if kept and not self.told and f"{_value(kept[-1], 'group')}-{_value(kept[-1], 'type')}" in left:
                kept.pop()
                self.told = 1
            made = [*kept, frame]
            kept.clear()
            return made


class ForgetfulProxy(LyingProxy):
    """Takes out of one reply whether what was missed could be read."""

    def __init__(self, url):
        super().__init__(url, begins=b'{"groups_')

    def _told(self, client, frame, number, kept):
        with self._lock:
            if self.told or b'"recovered":true' not in frame:
                return [frame]
            self.told = 1
            return [frame.replace(b'"recovered":', b'"unlike it":')]


def _value(frame, key):
    return json.loads(frame[frame.index(b"{") :])[key]


def _text(payload):
    return bytes((TEXT, len(payload))) + payload


def _close(code):
    return b"\x88\x02" + struct.pack("!H", code)


def _frame(stream):
    """One frame of a server's, whole."""
    head = stream.read(2)
    if len(head) < 2:
        return b""
    width = {126: 2, 127: 8}.get(head[1], 0)
    size = stream.read(width)
    return head + size + stream.read(int.from_bytes(size) if width else head[1])
