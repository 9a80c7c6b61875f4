"""URLs as errors and logs may quote them. Pure."""

from __future__ import annotations

import re

MAX_SHOWN = 100
"""Characters of a URL that are quoted, at the most."""

ESCAPES = "in a password / must be written %2F, ? %3F, # %23"
"""Why a URL that looks right may have a host or a port that is not."""

# Up to the last @: what stands before it may be a password in which nothing was escaped.
_PASSWORD = re.compile(r"^([A-Za-z][\w+.-]*://)?.*@", re.DOTALL)
_TOKEN = re.compile(r"\?.*", re.DOTALL)


def shown(url: str) -> str:
    """A URL in quotes, without a password or a token, and bounded."""
    text = _TOKEN.sub("?...", _PASSWORD.sub(r"\1...@", url))
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "...")
