"""Real-time event broadcast for automation platforms.

An event travels: emitter -> intake -> log -> dispatcher -> cohort -> session -> wire -> client.
docs/architecture.md names the rooms it passes; docs/protocol.md is the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towerbus.emitter import Emitter, NotConfirmed

__all__ = ["Emitter", "NotConfirmed", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the emitter when it is asked for: a server has no use for an HTTP client."""
    if name in {"Emitter", "NotConfirmed"}:
        from towerbus import emitter

        return getattr(emitter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
