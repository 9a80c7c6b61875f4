"""What comes from a foreign system, before it is mapped to events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

NO_HEADERS: Mapping[str, Any] = {}


class Message(msgspec.Struct, frozen=True, gc=False):
    """A foreign message, as a source hands it over.

    Attributes:
        body: Its bytes; mappings expect a JSON object in UTF-8, and what is none goes to the dead queue.
        id: What names it for ever, the same when it is handed over again: a `message_id`, a table's key, a hash of
            what is unique in it. By it the bus drops a repeat, so without one a message that is handed over twice
            becomes two events. Anything is allowed here; what can't be an event's id (1 to 128 visible ASCII
            characters) is replaced by its SHA-256.
        group: The group that the source knows it to be for; empty where it knows none. A mapping may say otherwise.
        type: The type likewise.
        routing_key: The key that it was published with; where nobody names group and type, they are taken from it
            (`group.type`).
        headers: What stands beside the body, by name.
        time: When it happened, in seconds since the epoch of Unix; None for now.
        content_type: The body's, for whoever finds it in the dead queue.
        place: Where it came from (a queue, a table, an address), likewise.
    """

    body: bytes
    id: str | None = None
    group: str = ""
    type: str = ""
    routing_key: str = ""
    headers: Mapping[str, Any] = NO_HEADERS
    time: float | None = None
    content_type: str = ""
    place: str = ""
