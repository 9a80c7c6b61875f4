"""Which Python files count for a restart, and which of them can't be compiled."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

# No dot in front: editors' locks and swap files (.#x.py, .x.py.swp). PyCharm's and flymake's copies end in .py.
_SOURCE = re.compile(r"(?!\.)(?!flycheck_).+(?<!_flymake)\.py")
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "build", "dist"})


def counts(path: Path, root: Path) -> bool:
    """Whether a change of a file is one of the program's.

    Args:
        path: The file.
        root: The directory that is watched; what stands above it does not matter.
    """
    parents = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    hidden = any(name.startswith(".") or name in _PASSED_OVER for name in parents)
    return not hidden and _SOURCE.fullmatch(path.name) is not None


class Sources:
    """The sources as they stand on the disk."""

    def __init__(self) -> None:
        self._broken: dict[Path, str] = {}

    @property
    def broken(self) -> Mapping[Path, str]:
        """What keeps files from being compiled, with the line."""
        return self._broken

    def look(self, paths: Iterable[Path]) -> None:
        """Read files again; one that has gone is not broken."""
        for path in paths:
            fault = _fault(path)
            if fault is None:
                self._broken.pop(path, None)
            else:
                self._broken[path] = fault


def _fault(path: Path) -> str | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"can't be read: {error.strerror}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(content, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except ValueError as error:  # a null byte
        return str(error)
    return None
