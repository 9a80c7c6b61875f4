"""How identities and grants are written in tokens, files and answers. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

import msgspec

from towerbus.access import Grants

PATTERN = r"^(\*|(\*|[A-Za-z0-9_]+)/(\*|[A-Za-z0-9_.-]+))$"
"""A grant: `group/type` with `*` for a whole part, or `*` alone."""
GRANT = "GROUP/TYPE such as jobs/status_changed, with * for a whole part (jobs/*), or * alone for everything"
"""The same in words."""
LATEST = 253402300800
"""Seconds since the epoch of Unix at the end of the year 9999; more than that is milliseconds, or a mistake."""

Pattern = Annotated[str, msgspec.Meta(pattern=PATTERN)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
UserText = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Moment = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]

_DIGITS = re.compile(r"0|[1-9][0-9]{0,17}")


class GivenGrants(msgspec.Struct, frozen=True):
    """Grants as somebody wrote them.

    Attributes:
        subscribe: Patterns of what may be seen.
        emit: Patterns of what may be emitted.
    """

    subscribe: tuple[Pattern, ...] = ()
    emit: tuple[Pattern, ...] = ()

    @property
    def grants(self) -> Grants:
        """The same, for the rules."""
        return Grants(self.subscribe, self.emit)


def user_id(subject: str | int) -> int | str:
    """A user's id from a text that can hold no integer, as a JWT's `sub`: digits become one."""
    return int(subject) if isinstance(subject, str) and _DIGITS.fullmatch(subject) else subject


def digest(secret: str) -> bytes:
    """What stands for a secret in tables and caches: its SHA-256."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
