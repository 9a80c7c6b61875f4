"""The position up to which a sink has everything, kept in a file: written whole, synchronised, put in place at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from towerbus import positions
from towerbus.errors import ConfigError
from towerbus.log.one_thread import OneThread
from towerbus.positions import Position

SHOWN = 60
"""Characters that are shown of a file that holds no position, at the most."""


class KeptPosition:
    """One sink's position.

    Args:
        directory: Where the file is.
        reactor: Where answers go; the disk is written off its thread.
        name: The bridge's.
    """

    def __init__(self, directory: Path, reactor: Any, name: str) -> None:
        self.path = directory / "position"
        self._thread = OneThread(reactor, f"bridge-{name}")

    def load(self) -> Position | None:
        """What was kept; None where nothing was.

        Raises:
            ConfigError: The file can't be read, or holds something else.
        """
        try:
            text = self.path.read_text(encoding="ascii", errors="backslashreplace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{self.path}: can't be read: {error.strerror}") from error
        try:
            return positions.parse(text)
        except positions.PositionError as error:
            raise ConfigError(
                f"{self.path}: {text[:SHOWN]!r} is not a position: put back the one that "
                "its last event carried, or remove the file to begin at the log's end, without what came before"
            ) from error

    def keep(self, position: Position) -> Deferred[None]:
        """Write it. Fires when it would survive a power cut; fails with OSError."""
        return self._thread.run(self._write, str(position))

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.close()

    def _write(self, text: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with new.open("w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        # Else the name may still be that of the file before, or of none: then a sink would begin anew at the log's end.
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
