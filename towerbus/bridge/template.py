"""Templates: texts with places for what a message has, `job_events`, `{payload.job}`, `{headers.tenant}_{type}`. Pure.

A place names a field of the message (`routing_key`, `group`, `type`, `id`), a header (`headers.NAME`) or a path in the
payload (`payload.a.b.0`, with numbers for the places in a list). `routing_key.1` is the key's second part. A brace by
itself is written twice, as in Python.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from typing import Any

from towerbus.bridge.message import Message
from towerbus.errors import PeerError

ROOTS = ("payload", "headers", "routing_key", "group", "type", "id")
"""What a place may begin with."""

_PLACES = "places are {payload.KEY}, {headers.NAME}, {routing_key}, {routing_key.0}, {group}, {type} and {id}"
_MAX_SHOWN = 60


class MissingError(PeerError):
    """A message has not what a template or a path asks for."""


class Path:
    """A path to a part of a message.

    Args:
        text: As it is written, `payload.job.id`.

    Raises:
        ValueError: It begins with nothing that a message has, or has an empty part.
    """

    __slots__ = ("parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts = tuple(text.split("."))
        if self.parts[0] not in ROOTS or "" in self.parts:
            raise ValueError(f"{{{text}}} is no place: {_PLACES}")
        if self.parts[0] in {"group", "type", "id"} and len(self.parts) > 1:
            raise ValueError(f"{{{text}}}: {self.parts[0]} has no parts: {_PLACES}")
        if self.parts == ("headers",):
            raise ValueError(f"{{headers}} is no place: {_PLACES}")

    def find(self, message: Message, payload: Any) -> Any:
        """What is there.

        Args:
            message: The message.
            payload: Its body as Python has it.

        Raises:
            MissingError: Nothing is.
        """
        root, *rest = self.parts
        if root == "headers":
            # A header's own name may have dots.
            name = ".".join(rest)
            if name in message.headers:
                return message.headers[name]
        found = payload if root == "payload" else getattr(message, root)
        if root == "routing_key" and rest:
            found = found.split(".")
        for part in rest:
            found = _step(found, part, self.text)
        if found is None or (found == "" and root not in {"payload", "headers"}):
            raise MissingError(f"it has no {self.text}")
        return found


class Template:
    """A text with places.

    Args:
        text: As it is written.

    Raises:
        ValueError: It is not one; the text says what is wanted.
    """

    __slots__ = ("_pieces", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._pieces: list[str | Path] = []
        for literal, field, spec, conversion in _parsed(text):
            if literal:
                self._pieces.append(literal)
            if field is None:
                continue
            if spec or conversion or "[" in field:
                raise ValueError(f"{{{field}}} must stand alone: {_PLACES}")
            self._pieces.append(Path(field))

    @property
    def constant(self) -> bool:
        """Whether it has no places."""
        return not any(isinstance(piece, Path) for piece in self._pieces)

    def asks(self, root: str) -> bool:
        """Whether it has a place that begins with this one of `ROOTS`."""
        return any(isinstance(piece, Path) and piece.parts[0] == root for piece in self._pieces)

    def fill(self, message: Message, payload: Any) -> str:
        """Put in what a message has.

        Raises:
            MissingError: It lacks something, or that is no text and no number.
        """
        return "".join(
            piece if isinstance(piece, str) else _text(piece.find(message, payload), piece.text)
            for piece in self._pieces
        )


def _parsed(text: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    try:
        yield from string.Formatter().parse(text)
    except ValueError as error:
        raise ValueError(f"it is no template such as job_events or {{payload.job}} ({error}); {_PLACES}") from None


def _step(found: Any, part: str, path: str) -> Any:
    if isinstance(found, Mapping) and part in found:
        return found[part]
    number = int(part) if part.isdecimal() and len(part) < 10 else -1  # noqa: PLR2004 - no list is longer
    if isinstance(found, list | tuple) and 0 <= number < len(found):
        return found[number]
    raise MissingError(f"it has no {path}")


def _text(value: Any, path: str) -> str:
    if isinstance(value, bytes):
        # So RabbitMQ's clients write some headers.
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool) or not isinstance(value, str | int):
        shown = repr(value)
        shown = shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."
        raise MissingError(f"{path} is {shown}, wanted is a text or a whole number")
    return str(value)
