"""The packed form of a record: one MessagePack array, the same in every log that stores bytes. Pure.

    [version, epoch, term, [[[group, type], payload, id, time], ...]]

`version` is 1, `epoch` and a topic's parts are strings, `payload` is a bin, `time` a float in seconds. A record's
offset is not in it: whoever stores it knows that. Later editions may append to the arrays what this one passes over;
what this one could not read rightly will have another version.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from towerbus.errors import TowerbusError
from towerbus.event import Event
from towerbus.log.record import Record

VERSION = 1
"""What this edition writes, and all that it reads."""

_Epoch = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{1,16}\Z")]
_Term = Annotated[int, msgspec.Meta(ge=0, lt=10**18)]


class NotARecord(TowerbusError):
    """Bytes that are no packed record, or one of another version; the text says which."""


class _Packed(msgspec.Struct, frozen=True, gc=False, array_like=True):
    version: int
    epoch: _Epoch
    term: _Term
    events: tuple[Event, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_peek = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_version = msgspec.msgpack.Decoder(int).decode


def pack(record: Record) -> bytes:
    """Pack a record; its offset is left out."""
    return _encode(_Packed(VERSION, record.epoch, record.term, record.events))


def unpack(data: bytes | memoryview, offset: int) -> Record:
    """Read a packed record. Its events were checked before they were packed, so only their types are looked at here.

    Args:
        data: What `pack` made.
        offset: Its place in the log.

    Raises:
        NotARecord: The bytes are not what `pack` makes.
    """
    try:
        packed = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotARecord(f"{len(data)} bytes at offset {offset} are no record: {_reason(data, error)}") from error
    if packed.version != VERSION:
        raise NotARecord(f"the record at offset {offset} is {_another(packed.version)}")
    return Record(packed.epoch, packed.term, offset, packed.events)


def _reason(data: bytes | memoryview, error: Exception) -> str:
    """Why it could not be read: a later version, if it says so itself."""
    try:
        version = _version(_peek(data)[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
        return str(error)
    return str(error) if version == VERSION else _another(version)


def _another(version: int) -> str:
    return f"of version {version}; this edition of towerbus reads version {VERSION}"
