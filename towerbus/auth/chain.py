"""Several `--auth` plugins as one: the first that knows a credential decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from towerbus.access import Identity
from towerbus.auth.callback import callback, session
from towerbus.auth.interface import Credential, IAuthenticator, NotNow, Told
from towerbus.auth.jwt import jwt
from towerbus.auth.tokens import TokenFile
from towerbus.errors import ConfigError


@implementer(IAuthenticator)
class Chain:
    """Asks plugins in order. The answer is at hand, not a Deferred, as long as theirs are.

    Args:
        plugins: The plugins, in order.
    """

    def __init__(self, plugins: Sequence[IAuthenticator]) -> None:
        self._plugins = tuple(plugins)

    def authenticate(self, credential: Credential) -> Identity | Deferred[Identity | None] | None:
        """Judge a credential.

        Raises:
            Refused: The plugin that knows it says no.
            NotNow: No plugin knows it, and one of them could not tell.
        """
        return self._judged(0, credential, None)

    @property
    def reloads(self) -> list[Callable[[], str]]:
        """What reads the plugins' files again, each for one; it may raise ConfigError."""
        return [plugin.reload for plugin in self._plugins if hasattr(plugin, "reload")]

    def tell(self, told: Told) -> None:
        """Tell of what becomes of identities that a plugin has given out."""
        for plugin in self._plugins:
            if hasattr(plugin, "tell"):
                plugin.tell(told)

    async def close(self) -> None:
        """Let go of the plugins' connections."""
        closers = [plugin.close() for plugin in self._plugins if hasattr(plugin, "close")]
        await gatherResults([Deferred.fromCoroutine(closer) for closer in closers])

    def _judged(
        self, place: int, credential: Credential, away: NotNow | None
    ) -> Identity | Deferred[Identity | None] | None:
        for number in range(place, len(self._plugins)):
            try:
                answer = self._plugins[number].authenticate(credential)
            except NotNow as error:
                away = error
                continue
            if isinstance(answer, Deferred):
                return Deferred.fromCoroutine(self._waited(answer, number + 1, credential, away))
            if answer is not None:
                return answer
        if away is not None:
            raise away
        return None

    async def _waited(
        self, asked: Deferred[Identity | None], place: int, credential: Credential, away: NotNow | None
    ) -> Identity | None:
        try:
            identity = await asked
        except NotNow as error:
            identity, away = None, error
        if identity is not None:
            return identity
        rest = self._judged(place, credential, away)
        return await rest if isinstance(rest, Deferred) else rest


def authenticator(specs: Sequence[str], reactor: Any, *, now: Callable[[], float] = time.time) -> Chain:
    """Make the plugins that `--auth` names.

    Args:
        specs: The strings, in order: `jwt:PATH`, `jwt:URL`, `tokens:FILE`, `callback:URL`, `session:URL`.
        reactor: Connects, and tells the time.
        now: Tells the seconds since the epoch of Unix.

    Raises:
        ConfigError: One of them can't be used; it names the string, and what is wanted.
    """
    return Chain([_plugin(spec, reactor, now) for spec in specs])


def _plugin(spec: str, reactor: Any, now: Callable[[], float]) -> IAuthenticator:
    kind, colon, rest = spec.partition(":")
    if colon and rest:
        if kind == "jwt":
            return jwt(rest, reactor, now=now)
        if kind == "tokens":
            return TokenFile(rest, reactor.seconds, now=now)
        if kind == "callback":
            return callback(rest, reactor, now=now)
        if kind == "session":
            return session(rest, reactor, now=now)
    raise ConfigError(f"--auth: got {spec!r}, wanted jwt:PATH, jwt:URL, tokens:FILE, callback:URL or session:URL")
