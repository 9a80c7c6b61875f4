"""The keys at a JWKS URL: fetched when they are first needed, kept, and fetched again when an unknown one is named."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from towerbus.auth.asking import DEADLINE, Application
from towerbus.auth.interface import NotNow
from towerbus.auth.keys import Key, KeyProblem, jwks, verifying
from towerbus.auth.recent import Shared

_log = Logger()

OK = 200
EVERY = 60.0
"""Seconds between two fetches that unknown keys call for, at the least."""
RETRY = 2.0
"""Seconds until the next try while no key was ever fetched."""
RENEW = 3600.0
"""Seconds after which the keys are fetched again beside the work, so that one that was withdrawn ends."""


class Keys(Protocol):
    """Where the keys of a `jwt:` plugin come from."""

    def current(self) -> tuple[Key, ...]:
        """The keys that are known; another tuple when they have changed."""

    def more(self) -> Deferred[None] | None:
        """Look for keys that are not known yet.

        Returns:
            A Deferred for when that is done; None where it is of no use now. It raises or fails with `NotNow`.
        """

    def reload(self) -> str:
        """Look again, whatever is known. Returns what was done, in words.

        Raises:
            ConfigError: It can't be used; what was known stays.
        """

    async def close(self) -> None:
        """Let go of connections."""


class FixedKeys:
    """Keys that stay as they are.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys

    def current(self) -> tuple[Key, ...]:
        """The keys."""
        return self._keys

    def more(self) -> None:
        """There are no more."""

    def reload(self) -> str:
        """There is nothing to look at."""
        return f"{len(self._keys)} keys, which stay as they are"

    async def close(self) -> None:
        """Nothing is open."""


class FileKeys(FixedKeys):
    """The keys of a file.

    Args:
        path: The file.

    Raises:
        ConfigError: It can't be used.
    """

    def __init__(self, path: str) -> None:
        super().__init__(verifying(path))
        self._path = path

    def reload(self) -> str:
        """Read the file again; a token whose key is gone lets nobody in any more."""
        self._keys = verifying(self._path)
        return f"{len(self._keys)} keys from {self._path}"


class KeysAtUrl:
    """The keys at a JWKS URL.

    Args:
        url: Where they are.
        reactor: Connects.
        deadline: Seconds for one fetch.
        clock: Keeps the deadline and the intervals; the reactor where it is None.

    Raises:
        ConfigError: The URL can't be asked.
    """

    def __init__(self, url: str, reactor: Any, *, deadline: float = DEADLINE, clock: Any = None) -> None:
        self._clock = reactor if clock is None else clock
        self._application = Application(url, reactor, option="--auth jwt:", deadline=deadline, clock=self._clock)
        self._keys: tuple[Key, ...] = ()
        self._tried = float("-inf")
        self._trouble = ""
        self._fetching: Shared[str, None] = Shared()
        self._in_flight = False

    def current(self) -> tuple[Key, ...]:
        """The keys that are known; when they are old, they are renewed beside."""
        if self._keys and not self._in_flight and self._clock.seconds() - self._tried >= RENEW:
            self._fetch().addErrback(lambda failure: failure.trap(NotNow) and None)  # the log has it
        return self._keys

    def more(self) -> Deferred[None] | None:
        """Fetch the keys, or wait for the fetch in flight; but not again so soon after the last."""
        if not self._in_flight and self._clock.seconds() - self._tried < (EVERY if self._keys else RETRY):
            if self._trouble:
                raise NotNow(self._trouble)
            return None
        return self._fetch()

    def reload(self) -> str:
        """Fetch the keys again beside the work; the log tells what comes of it."""
        if not self._in_flight:
            self._fetch().addErrback(lambda failure: failure.trap(NotNow) and None)  # the log has it
        return f"the keys at {self._application.shown} are being fetched"

    async def close(self) -> None:
        """End what is in flight, and close the connections."""
        await self._application.close()

    def _fetch(self) -> Deferred[None]:
        return self._fetching.ask("", lambda: Deferred.fromCoroutine(self._fetched()))

    async def _fetched(self) -> None:
        self._in_flight = True
        self._tried = self._clock.seconds()
        try:
            answer = await self._application.ask("GET", {"Accept": "application/json"})
            if answer.status != OK:
                raise NotNow(f"{self._application.shown} answered {answer.status}; wanted 200")
            self._keys = jwks(answer.body, secrets=False)
        except (NotNow, KeyProblem) as error:
            self._trouble = f"no keys from {self._application.shown}: {error}"
            _log.warn("keys_not_fetched: {reason}", reason=self._trouble)
            raise NotNow(self._trouble) from None
        else:
            self._trouble = ""
            _log.info("keys_fetched: {count} from {url}", count=len(self._keys), url=self._application.shown)
        finally:
            self._in_flight = False
