"""The errors that cross a seam, in two families: the peer's fault, and ours or our surroundings'.

A peer's fault is answered and logged as a warning; the other kind is logged as a failure and mended by the operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towerbus.positions import Lost


class TowerbusError(Exception):
    """Base of all errors that towerbus raises on purpose; its text is fit to be read by a person."""


class PeerError(TowerbusError):
    """What a client or a producer sent is not right; the text says what was wrong and how to mend it."""


class ConfigError(TowerbusError):
    """An option or the configuration file is not right; the text names file, key, what it got and what it wants."""


class NotConfirmed(TowerbusError):
    """An emit did not get its confirmation, so its events may or may not be in the log.

    Args:
        reason: What is known.
        ids: The ids of the events that are in doubt. Emitting them again with the same ids cannot repeat them.
        sure: True when it is certain that none of them was taken.
    """

    def __init__(self, reason: str, ids: tuple[str, ...] = (), *, sure: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.ids = ids
        self.sure = sure

    @property
    def id(self) -> str | None:
        """The id of the event, where it was one."""
        return self.ids[0] if self.ids else None


class BusUnavailable(NotConfirmed):
    """The bus can't take events now; none of these was taken, and trying again later is right."""

    def __init__(self, reason: str, ids: tuple[str, ...] = ()) -> None:
        super().__init__(reason, ids, sure=True)


class NoRoom(BusUnavailable):
    """What keeps events for the bus is full. Its text holds nothing of the installation: producers are told it."""


class PositionLostError(PeerError):
    """Nothing complete can be read from a position on.

    Args:
        lost: Which part is lost, and why; the log can be read on from `lost.until`.
        begins: Whether the log begins there, so that all positions before it are lost as well.
    """

    def __init__(self, lost: Lost, *, begins: bool = False) -> None:
        super().__init__(lost.reason)
        self.lost = lost
        self.begins = begins
