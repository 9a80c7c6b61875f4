"""Takes apart what a client has read, and remembers what was right, so that the same need not be taken apart again."""

from __future__ import annotations

from collections.abc import Callable

from towerbus.bench import frames
from towerbus.bench.client import NOTHING, Client, State
from towerbus.bench.ledger import Faults
from towerbus.bench.loads import Role
from towerbus.bench.schedule import Chunk
from towerbus.bench.talk import Talk

MAX_FRAMES = 8192
"""Frames that are known by heart, one for each event: those who come back get them in pieces of all sizes."""


class Reader:
    """Reads frames.

    Args:
        talk: Understands what they say.
        faults: What was untrue.
        closed: Called with a client whose connection the server closes, the code, and the reason.
        compression: Whether messages may be compressed. What is known by heart is not inflated again.
    """

    def __init__(
        self,
        talk: Talk,
        faults: Faults,
        closed: Callable[[Client, int | None, str], None],
        *,
        compression: bool = False,
    ) -> None:
        self._talk, self._faults, self._closed = talk, faults, closed
        self._compression = compression
        self._numbers: list[int] = []
        self._frames: dict[int, Chunk] = {}
        talk.on_event = self._got

    def take(self, client: Client, data: bytes) -> list[int]:
        """Take whole frames, and keep the rest; remember what was in order.

        Returns:
            The events in them that the client should have got.

        Raises:
            TowerbusError: The server does not let the client in, or refuses what every client of the load needs.
        """
        plain, first, faults = client.chunks is not NOTHING, client.next, self._faults.total
        self._numbers = []
        buffer, at, events = client.part + data, 0, False
        try:
            at, events = self._take_frames(client, buffer)
        except frames.FrameError as error:
            self._closed(client, None, str(error))
        if client.state is State.OUT:
            return self._numbers
        client.part = buffer[at:]
        clear = client.state is State.OPEN and client.settled and not client.part and client.awaited is None
        clear = clear and not client.since and not client.unproven and client.role is not Role.SLOW
        if plain and clear and events and self._numbers and self._faults.total == faults:
            client.feed.remember(first, Chunk(data, client.next, tuple(self._numbers), client.position))
        client.chunks = client.feed.chunks if clear else NOTHING
        return self._numbers

    def _take_frames(self, client: Client, buffer: bytes) -> tuple[int, bool]:
        """Take whole frames; returns where the rest begins, and whether all were events."""
        at, events = 0, True
        while client.state is not State.OUT:
            if (end := self._take_known(client, buffer, at)) == at:
                if (frame := frames.frame(buffer, at, compression=self._compression)) is None:
                    break
                end = frame.end
                events &= self._take_frame(client, frame, buffer[at:end])
            at = end
        return at, events

    def _take_known(self, client: Client, buffer: bytes, at: int) -> int:
        """Take the event that is wanted next, if it comes just as another client has got it.

        Returns:
            Where the next frame begins: the same place if it does not.
        """
        if client.state is not State.OPEN or not client.settled or client.unproven:
            return at
        known = self._frames.get(client.feed.following(client.next))
        if known is None or not buffer.startswith(known.data, at):
            return at
        client.next, client.position = known.next, known.position
        self._numbers += known.numbers
        return at + len(known.data)

    def _take_frame(self, client: Client, frame: frames.Frame, data: bytes) -> bool:
        """Take any frame; says whether it was an event."""
        if frame.opcode != frames.TEXT:
            self._take_control(client, frame)
            return False
        before, faults = len(self._numbers), self._faults.total
        event = self._talk.take(client, frame.payload)
        if len(self._numbers) > before and self._faults.total == faults:
            if len(self._frames) >= MAX_FRAMES:
                self._frames.clear()
            number = self._numbers[-1]
            self._frames[number] = Chunk(data, number + 1, (number,), client.position)
        return event

    def _take_control(self, client: Client, frame: frames.Frame) -> None:
        if frame.opcode == frames.PING:
            client.send(frames.PONG, frame.payload)
        elif frame.opcode == frames.CLOSE:
            client.send(frames.CLOSE, frame.payload[:2])
            code = frames.close_code(frame.payload)
            reason = frame.payload[2:].decode("utf-8", "replace")
            self._closed(client, code, f"the server closed with {code}{f' ({reason})' if reason else ''}")

    def _got(self, _: Client, number: int) -> None:
        self._numbers.append(number)
