"""What the bench emits: every byte follows from the run and a number, so that any reader can check it. Pure."""

from __future__ import annotations

import re
from hashlib import shake_128

MIN_SIZE = 64
"""Bytes in a payload, at the least: the run and the number have to stand in it."""

_NUMBER = re.compile(rb'"run":"([0-9a-z]+)","number":(\d{1,12}),')


class Content:
    """The events of one run.

    Args:
        run: What tells them from those of other runs: letters and digits.
        size: Bytes in a payload.
    """

    def __init__(self, run: str, size: int) -> None:
        self._run = run.encode()
        self._size = size

    def payload(self, number: int) -> bytes:
        """The payload of an event: a JSON object of the run's size."""
        head = b'{"run":"%s","number":%d,"text":"' % (self._run, number)
        room = self._size - len(head) - 2
        text = shake_128(head).hexdigest((room + 1) // 2)[:room]
        return b'%s%s"}' % (head, text.encode())

    def id(self, number: int) -> str:
        """The id of an event."""
        return f"{self._run.decode()}-{number}"

    def number(self, payload: bytes) -> int | None:
        """The number that stands in a payload, whatever the rest is; None where it is not of this run."""
        found = _NUMBER.search(payload)
        return int(found[2]) if found is not None and found[1] == self._run else None

    def is_foreign(self, payload: bytes) -> bool:
        """Whether a payload is one of another run."""
        found = _NUMBER.match(payload, 1)
        return found is not None and found[1] != self._run


def difference(got: bytes, wanted: bytes) -> str:
    """Where a payload is not what it should be, for a person."""
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
    return f"{len(got)} bytes for {len(wanted)}, from byte {at} on {got[at : at + 16]!r} for {wanted[at : at + 16]!r}"
