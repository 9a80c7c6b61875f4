"""`towerbus emit`: one event, or as many as standard input has lines."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO, NamedTuple

import click

from towerbus import topics
from towerbus.commands.urls import HTTP_URL, http_url, token_option
from towerbus.emitter import Emitter
from towerbus.errors import ConfigError, NotConfirmed, PeerError, TowerbusError
from towerbus.event import check_payload
from towerbus.intake.bodies import one

CHUNK = 64 * 1024
"""Bytes that are read at once; the lines in them are one request."""
MAX_LINE = 16 * 1024 * 1024
"""Bytes in a line, at the most: what a server takes in a request, unless configured otherwise."""
_WORDS = 3


@click.command()
@click.option(
    "--url", envvar="TOWERBUS_URL", default=HTTP_URL, show_default=True, help="The HTTP listener's URL [$TOWERBUS_URL]."
)
@token_option
@click.option("--id", "id_", help="The event's id; an id that was emitted before is not repeated.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for a confirmation.",
)
@click.argument("words", metavar="[GROUP TYPE] JSON|-", nargs=-1, required=True)
def emit(url: str, token: str, id_: str | None, timeout: float, words: tuple[str, ...]) -> None:
    """Emit an event; exit code 0 only when it is confirmed. Its id is printed.

    JSON is the payload, a non-empty object. With - each line of standard input is a payload; they are emitted in this
    order, as they come, and their number is told at the end. With - alone each line is a whole event:
    {"group": "jobs", "type": "status_changed", "payload": {...}}, and "id" if you have one.

    TOWERBUS_URL may also hold the WebSocket's URL, as long as both listeners have their default ports (8051, 8052).

    \b
    towerbus emit jobs status_changed '{"unified_job_id": 1, "status": "running"}'
    some-program | towerbus emit job_events 42 -
    towerbus emit - < events.ndjson
    """  # noqa: D301 - click's mark
    if len(words) != _WORDS and words != ("-",):
        raise click.UsageError("wanted is GROUP TYPE JSON|-, or - alone")
    topic = topics.emittable(words[0], words[1]) if len(words) == _WORDS else None
    with Emitter(http_url(url), token, timeout=timeout) as emitter:
        if words[-1] == "-":
            if id_ is not None:
                raise ConfigError("--id is for one event: it can't go with -")
            _emit_lines(emitter, topic)
        elif topic is not None:
            click.echo(_emit_one(emitter, topic, os.fsencode(words[-1]), id_))


def _emit_one(emitter: Emitter, topic: topics.Topic, payload: bytes, id_: str | None) -> str:
    try:
        return emitter.emit(topic.group, topic.type, payload, id_)
    except NotConfirmed as error:
        raise TowerbusError(f"{error}; to try again without repeating it: --id {error.id}") from error


class Line(NamedTuple):
    """A line that is not blank, and its number from 1."""

    number: int
    text: bytes


def batches(stream: BinaryIO) -> Iterator[list[Line]]:
    """The lines of a stream, as many at once as are at hand: one that comes alone does not wait for the next.

    Raises:
        PeerError: A line has no end.
    """
    kept: list[bytes] = []
    number = size = 0
    while chunk := stream.read1(CHUNK):  # type: ignore[attr-defined]
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            lines = b"".join([*kept, head]).split(b"\n")
            yield _numbered(lines, number)
            kept, size, number = [tail], len(tail), number + len(lines)
            continue
        kept.append(chunk)
        size += len(chunk)
        if size > MAX_LINE:
            raise PeerError(f"line {number + 1} is longer than {MAX_LINE} bytes")
    yield _numbered([b"".join(kept)], number)


def _numbered(lines: list[bytes], before: int) -> list[Line]:
    return [Line(number, line.strip()) for number, line in enumerate(lines, before + 1) if line.strip()]


def _event(line: Line, topic: topics.Topic | None) -> Mapping[str, Any]:
    if topic is None:
        event = one(line.text, f"line {line.number}", sys.maxsize)
        return {"group": event.topic.group, "type": event.topic.type, "payload": event.payload, "id": event.id}
    try:
        check_payload(line.text, sys.maxsize)
    except PeerError as error:
        raise PeerError(f"line {line.number}: {error}") from error
    return {"group": topic.group, "type": topic.type, "payload": line.text}


def _emit_lines(emitter: Emitter, topic: topics.Topic | None) -> None:
    """Emit standard input, line by line, and say on a terminal how far it is."""
    if sys.stdin is None:
        raise ConfigError("standard input is closed")
    done = 0
    with _progress() as bar:
        try:
            for batch in batches(sys.stdin.buffer):
                done += _emit_batch(emitter, topic, batch)
                if bar is not None:
                    bar.update(sum(len(line.text) + 1 for line in batch))
        except TowerbusError as error:
            raise TowerbusError(f"{error} ({done} events were emitted before)") from error
        if bar is not None and bar.length:
            bar.update(bar.length - bar.pos)
    click.echo(f"{done} events emitted", err=True)


def _emit_batch(emitter: Emitter, topic: topics.Topic | None, batch: list[Line]) -> int:
    events = [_event(line, topic) for line in batch]
    try:
        return len(emitter.emit_many(events))
    except NotConfirmed as error:
        doubt = "not one of them was taken" if error.sure else "they may or may not have been taken"
        lines = f"lines {batch[0].number} to {batch[-1].number}"
        raise TowerbusError(f"{lines}: {error}; {doubt}") from error
    except PeerError as error:
        # The server counts the items of a request, and a person counts lines.
        named = re.match(r"item (\d+): ", str(error))
        text = f"line {batch[int(named[1])].number}: {str(error)[named.end() :]}" if named else str(error)
        raise PeerError(text) from error


def _progress() -> AbstractContextManager[Any]:
    """A bar for a person at a terminal, where standard input is a file; nothing else has a known end."""
    status = os.fstat(sys.stdin.fileno())
    if not sys.stderr.isatty() or not stat.S_ISREG(status.st_mode) or not status.st_size:
        return nullcontext()
    return click.progressbar(length=status.st_size, label="emitting", file=sys.stderr)
