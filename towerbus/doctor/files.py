"""Who else may read and write the files that decide who is let in."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from towerbus.doctor.findings import Finding, warning
from towerbus.endpoints import read


def look(config: str, auth: Sequence[str], endpoints: Sequence[str]) -> Iterable[Finding]:
    """Name the files that everybody on this machine may write, and the secrets that everybody may read.

    Args:
        config: The configuration file; empty where there is none.
        auth: The values of `--auth`.
        endpoints: Endpoint strings, for their private keys.
    """
    given = [each.partition(":")[::2] for each in auth]
    tokens = [path for kind, path in given if kind == "tokens"]
    keys = [path for kind, path in given if kind == "jwt" and "://" not in path]
    private = [words.names["privateKey"] for words in map(read, endpoints) if "privateKey" in words.names]
    for path in dict.fromkeys([config, *tokens, *keys, *private]):
        if _mode(path) & stat.S_IWOTH:
            text = f"{path} can be written by everybody on this machine: who writes it decides who is let in"
            yield warning("files", text, f"chmod o-w {path}")
    for path in dict.fromkeys([*filter(_is_secret, keys), *private]):
        if _mode(path) & stat.S_IROTH:
            text = f"{path} can be read by everybody on this machine: it is a secret"
            yield warning("files", text, f"chgrp GROUP {path}; chmod 640 {path}, for the group of the service")


def _mode(path: str) -> int:
    with suppress(OSError):
        return Path(path).stat().st_mode if path else 0
    return 0


def _is_secret(path: str) -> bool:
    """Whether a key for `jwt:` is no public one: it signs as well."""
    with suppress(OSError):
        content = Path(path).read_bytes().lstrip()
        return b"-----BEGIN" not in content and (content[:1] != b"{" or b'"oct"' in content)
    return False
