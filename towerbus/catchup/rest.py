"""What the tail has for one who catches up, in pieces."""

from __future__ import annotations

from towerbus.catchup.limits import Limits
from towerbus.catchup.member import Member
from towerbus.interest import Opens
from towerbus.log.interface import ILog
from towerbus.log.tail import Entry
from towerbus.positions import Position

CHUNK = 256
"""Events that are looked at for one member at a time."""
SHARED = 4 * 1024 * 1024
"""Bytes of what was made that are kept for others who are alike."""
NEWEST = 5000
"""Newest events of a group that are looked at for the last of each of its topics."""

OVERHEAD = 1000
"""Bytes that each is counted as, beside its own."""

Next = tuple[bytes, Position, bool]
"""What is sent next, up to where that is, and whether there is no more."""


class Rest:
    """The tail, for those who catch up.

    Args:
        log: The log whose tail it is.
        opens: Tells which badges let see a topic.
        limits: How much a member is sent at a time.
    """

    def __init__(self, log: ILog, opens: Opens, limits: Limits) -> None:
        self._log = log
        self._opens = opens
        self._limits = limits
        self._same: dict[object, Next] = {}
        self._size = 0

    def last(self, member: Member) -> list[Entry]:
        """The last events of each topic that a member wants, up to its place."""
        place, topics = member.place, member.past.interest.topics
        assert place is not None  # noqa: S101 - it was given one
        entries = self._log.tail.last(
            topics,
            member.past.last or 0,
            member.groups,
            lambda topic: member.wants(topic, self._opens),
            NEWEST,
        )
        return [entry for entry in entries if entry.position <= place]

    def history(self, member: Member) -> bytes:
        """Take what is sent next of a member's last events."""
        budget = self._budget(member)
        frames: list[bytes] = []
        while member.history and (budget > 0 or not frames):
            entry = member.history.popleft()
            frames.append(member.encodings(entry.record, entry.number))
            budget -= len(frames[-1])
        return b"".join(frames)

    def missed(self, member: Member, position: Position) -> Next:
        """What a member is sent next of what it has missed up to a position; those who are alike get the same bytes.

        Args:
            member: Its place is covered by the tail.
            position: The place up to which everybody else has been sent everything.
        """
        if member.who.waiting:
            return self._read(member, position)
        past = member.past
        alike = (member.place, member.encodings, past.interest, past.without)
        found = self._same.get(alike)
        # What is the rest at one place is not at the next.
        if found is None or (found[2] and found[1] != position):
            found = self._read(member, position)
            self._keep(alike, found)
        return found

    def _keep(self, alike: object, made: Next) -> None:
        old = self._same.pop(alike, None)
        self._same[alike] = made
        self._size += len(made[0]) + OVERHEAD - (0 if old is None else len(old[0]) + OVERHEAD)
        while self._size > SHARED:
            self._size -= len(self._same.pop(next(iter(self._same)))[0]) + OVERHEAD

    def _read(self, member: Member, position: Position) -> Next:
        place, budget = member.place, self._budget(member)
        assert place is not None  # noqa: S101 - the tail covers it
        piece = self._log.tail.missed(
            place, member.past.interest.topics, member.groups, lambda topic: member.wants(topic, self._opens), CHUNK
        )
        entries, encodings = piece.entries, member.encodings
        while entries and entries[-1].position > position:
            # The tail has more than everybody else has been sent: that comes to this one as it does to them.
            entries.pop()
        frames: list[bytes] = []
        for _, number, record in entries:
            frame = encodings(record, number)
            budget -= len(frame)
            if budget < 0 and (frames or member.who.waiting):
                return b"".join(frames), entries[len(frames) - 1].position if frames else place, False
            frames.append(frame)
        data = b"".join(frames)
        return (data, position, True) if piece.until >= position else (data, piece.until, False)

    def _budget(self, member: Member) -> int:
        """Bytes that a member may be sent now."""
        return min(self._limits.piece, self._limits.room - member.who.waiting)
