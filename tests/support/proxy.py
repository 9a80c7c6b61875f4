"""A TCP proxy that breaks things: it stands between a client and a server, and does what networks do.

It runs in the test's reactor. For a test that blocks its reactor there is `BlockingProxy`, which runs in a thread.
"""

import threading

from support.ports import Ports
from support.proxy_links import TO_CLIENT, TO_SERVER, Faults, Link
from twisted.internet import threads
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory


class Proxy:
    """Listens on a port of its own, which stays the same, and forwards to a target: `async with Proxy(reactor, port) as proxy`.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        accepted: How many connections it has accepted.
        passed: How many bytes it has passed on, by direction.
    """

    def __init__(self, reactor, port, host="127.0.0.1"):
        """Say where to forward to.

        Args:
            reactor: The reactor.
            port: The target's.
            host: The target's address.
        """
        self.reactor, self._target = reactor, (host, port)
        self._ports = Ports()
        self.port = self._ports.numbers[0]
        self.accepted, self.passed = 0, {TO_SERVER: 0, TO_CLIENT: 0}
        self._links, self._listening, self._empty = set(), None, None
        self.faults = {TO_SERVER: Faults(), TO_CLIENT: Faults()}

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *reason):
        await self.stop()

    async def start(self):
        """Listen."""
        self._listen()

    async def stop(self):
        """End the connections and listen no more."""
        await self.refuse()
        if self._links:
            self._empty = Deferred()
            self.cut()
            await self._empty
        self._ports.release()

    @property
    def open(self):
        """How many connections there are."""
        return len(self._links)

    def cut(self):
        """Reset all connections, both ways: RST."""
        for link in list(self._links):
            link.cut()

    def hang_up(self):
        """End all connections in order, both ways: FIN behind what was passed on."""
        for link in list(self._links):
            link.hang_up()

    def blackhole(self, *directions):
        """Pass nothing on, not even an end, and keep the connections, also new ones; what comes waits for `heal`.

        A sender can go on until the kernel's buffers are full: some megabytes on loopback.

        Args:
            *directions: `TO_SERVER` or `TO_CLIENT`; none stands for both.
        """
        for direction in directions or self.faults:
            self.faults[direction].hole = True
        self._turn()

    def delay(self, seconds, *directions):
        """Pass everything on so much later, in order; no more than 128 KiB are on their way at a time.

        Args:
            seconds: How much; 0 ends it.
            *directions: `TO_SERVER` or `TO_CLIENT`; none stands for both.
        """
        for direction in directions or self.faults:
            self.faults[direction].delay = seconds

    def cut_after(self, count, direction):
        """Reset the connection that carries the last of so many more bytes, when exactly these have been passed on. Once.

        Args:
            count: Bytes, 1 or more, from now on, of all connections together.
            direction: `TO_SERVER` or `TO_CLIENT`.
        """
        assert count > 0, count
        self.faults[direction].cut_after = count

    async def refuse(self):
        """Accept no more connections: a client gets `connection refused`. Those that are there go on."""
        if self._listening is not None:
            listening, self._listening = self._listening, None
            await listening.stopListening()

    async def heal(self):
        """End everything that is wrong, and pass on what waits."""
        for faults in self.faults.values():
            faults.hole, faults.delay, faults.cut_after = False, 0.0, None
        for link in list(self._links):
            link.flush()
        self._turn()
        if self._listening is None:
            self._listen()

    def _listen(self):
        factory = Factory.forProtocol(lambda: Link(self, *self._target).client)
        factory.noisy = False
        self._listening = self.reactor.listenTCP(self.port, factory, interface="127.0.0.1")

    def _turn(self):
        for link in list(self._links):
            link.turn()

    def made(self, link):
        """A client has connected."""
        self._links.add(link)
        self.accepted += 1

    def gone(self, link):
        """Both connections of a link have ended."""
        self._links.discard(link)
        if not self._links and self._empty is not None:
            self._empty.callback(None)


class ProxyThread:
    """A reactor in a thread, for proxies of tests that block their own. `stop` ends it, when its proxies have been stopped."""

    def __init__(self):
        self.reactor = EPollReactor()
        self.reactor._registerAsIOThread = False  # that is the other reactor's
        self._thread = threading.Thread(target=self.reactor.run, args=(False,), daemon=True)
        self._thread.start()

    def stop(self):
        self.reactor.callFromThread(self.reactor.stop)
        self._thread.join()
        for waker in list(self.reactor._internalReaders):
            waker.connectionLost(None)
        self.reactor._poller.close()


class BlockingProxy:
    """A `Proxy` in a `ProxyThread`: the same verbs and attributes; each verb has been done when it returns."""

    def __init__(self, thread, port, host="127.0.0.1"):
        self._reactor = thread.reactor
        self._proxy = Proxy(thread.reactor, port, host)
        self.start()

    def __getattr__(self, name):
        found = getattr(self._proxy, name)
        if not callable(found):
            return found
        return lambda *given: threads.blockingCallFromThread(self._reactor, self._done, found, given)

    @staticmethod
    def _done(verb, given):
        returned = verb(*given)
        return None if returned is None else Deferred.fromCoroutine(returned)
