"""A peer that shows a certificate over TLS, and no more: what a client does before the first byte of AMQP."""

import contextlib
import socket
import ssl
import threading


class TlsServer:
    """Shakes hands with whoever comes, in a thread, until it is closed.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        spoken: Bytes that clients sent inside TLS: what they say to a peer that they trust.
    """

    def __init__(self, key, chain):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain, key)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.spoken = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            client.settimeout(10)
            with contextlib.suppress(OSError), client, self._context.wrap_socket(client, server_side=True) as tls:
                self.spoken += tls.recv(1000)

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
