"""`towerbus emit`: one event, or as many as standard input has lines."""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO, NamedTuple

import click

from towerbus import posting, topics
from towerbus.commands.urls import HTTP_URL, http_url, token_option
from towerbus.emitter import Emitter
from towerbus.errors import ConfigError, NotConfirmed, PeerError, TowerbusError
from towerbus.event import check_payload, checked_id
from towerbus.intake.bodies import one

CHUNK = 64 * 1024
"""Bytes that are read at once; the lines in them are emitted together."""
MAX_LINE = 16 * 1024 * 1024
"""Bytes in a line, at the most: what a server takes in a request, unless configured otherwise."""
MAX_RUN = 100
"""Characters of what the ids of lines begin with, at the most."""
_WORDS = 3


@click.command()
@click.option(
    "--url",
    envvar="TOWERBUS_URL",
    default=HTTP_URL,
    show_default=True,
    help="The HTTP listener's URL, or the broker's, amqp://USER:PASSWORD@HOST/VHOST [$TOWERBUS_URL].",
)
@token_option
@click.option(
    "--id",
    "id_",
    help="The event's id; an id that was emitted before is not repeated. With - line 7 has the id ID.7, unless it has "
    "its own.",
)
@click.option("--from", "first", type=click.IntRange(1), metavar="LINE", help="With -: pass over the lines before it.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for a confirmation.",
)
@click.argument("words", metavar="[GROUP TYPE] JSON|-", nargs=-1, required=True)
def emit(url: str, token: str, id_: str | None, first: int | None, timeout: float, words: tuple[str, ...]) -> None:
    """Emit an event; exit code 0 only when it is confirmed. Its id is printed.

    JSON is the payload, a non-empty object. With - each line of standard input is a payload; they are emitted in this
    order, as they come, and their number is told at the end. With - alone each line is a whole event:
    {"group": "jobs", "type": "status_changed", "payload": {...}}, and "id" if you have one. Where it ends before the
    last line, it says which lines are confirmed, and with which --id and --from to go on so that none is repeated.

    TOWERBUS_URL may also hold the WebSocket's URL, as long as both listeners have their default ports (8051, 8052).
    With a broker's URL events go straight to it, and no token is needed: its user and password decide.

    \b
    towerbus emit jobs status_changed '{"unified_job_id": 1, "status": "running"}'
    some-program | towerbus emit job_events 42 -
    towerbus emit - < events.ndjson
    """  # noqa: D301 - click's mark
    if len(words) != _WORDS and words != ("-",):
        raise click.UsageError("wanted is GROUP TYPE JSON|-, or - alone")
    topic = topics.emittable(words[0], words[1]) if len(words) == _WORDS else None
    address, secret = (url, _needless(token)) if posting.is_amqp(url) else (http_url(url), token)
    with Emitter(address, secret, timeout=timeout) as emitter:
        if words[-1] == "-":
            _emit_lines(Lines(emitter, topic, _run(id_), first or 1))
        elif topic is not None:
            if first is not None:
                raise ConfigError("--from is for lines: it goes with - only")
            click.echo(_emit_one(emitter, topic, os.fsencode(words[-1]), id_))


def _needless(token: str) -> str:
    """Say that a token is not used, where one is given; the environment may hold it for other commands."""
    source = click.get_current_context().get_parameter_source("token")
    if token and source is click.core.ParameterSource.COMMANDLINE:
        click.echo(f"Note: {posting.NEEDLESS}", err=True)
    return ""


def _run(given: str | None) -> str:
    """What the ids of lines begin with."""
    if given is None:
        return secrets.token_hex(8)
    if len(given) > MAX_RUN:
        raise ConfigError(f"--id: wanted are {MAX_RUN} characters at the most, with -: a line's number comes behind it")
    return checked_id(given)


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


class Lines:
    """Emits lines, and knows how far it is.

    Args:
        emitter: Emits.
        topic: Of all of them; None where each is a whole event.
        run: What their ids begin with.
        first: The first line that counts.
    """

    def __init__(self, emitter: Emitter, topic: topics.Topic | None, run: str, first: int) -> None:
        self._emitter = emitter
        self._topic = topic
        self._run = run
        self._first = first
        self._upto = 0
        self._doubt: tuple[int, int] | None = None
        self.done = 0
        """Events that are confirmed."""

    def emit(self, batch: list[Line]) -> None:
        """Emit a batch of them.

        Raises:
            TowerbusError: It is not confirmed; `so_far` says what is.
        """
        counted = [line for line in batch if line.number >= self._first]
        events = [self._event(line) for line in counted]
        if not events:
            return
        self._doubt = counted[0].number, counted[-1].number
        try:
            self._emitter.emit_many(events)
        except NotConfirmed as error:
            if error.sure:
                self._doubt = None
            raise TowerbusError(f"lines {counted[0].number} to {counted[-1].number}: {error}") from error
        except PeerError as error:
            self._doubt = None
            # The server counts the items of a request, and a person counts lines.
            named = re.match(r"item (\d+): ", str(error))
            text = f"line {counted[int(named[1])].number}: {str(error)[named.end() :]}" if named else str(error)
            raise PeerError(text) from error
        self._doubt = None
        self.done += len(events)
        self._upto = counted[-1].number

    def so_far(self) -> str:
        """What is known of the lines, and how to go on; for when it ended before the last one."""
        known = f"{self.done} events are confirmed"
        if self.done:
            known += f", up to line {self._upto}"
        if self._doubt is not None:
            known += f"; lines {self._doubt[0]} to {self._doubt[1]} may or may not have been taken"
        first = max(self._first, self._upto + 1)
        return f"{known}; to go on and repeat none, give the same lines again with --id {self._run} --from {first}"

    def _event(self, line: Line) -> Mapping[str, Any]:
        id_ = f"{self._run}.{line.number}"
        if self._topic is None:
            event = one(line.text, f"line {line.number}", sys.maxsize, id_)
            return {"group": event.topic.group, "type": event.topic.type, "payload": event.payload, "id": event.id}
        try:
            check_payload(line.text, sys.maxsize)
        except PeerError as error:
            raise PeerError(f"line {line.number}: {error}") from error
        return {"group": self._topic.group, "type": self._topic.type, "payload": line.text, "id": id_}


def _emit_lines(lines: Lines) -> None:
    """Emit standard input, line by line, and say on a terminal how far it is."""
    if sys.stdin is None:
        raise ConfigError("standard input is closed")
    with _progress() as bar:
        try:
            for batch in batches(sys.stdin.buffer):
                lines.emit(batch)
                if bar is not None:
                    bar.update(sum(len(line.text) + 1 for line in batch))
        except KeyboardInterrupt:
            click.echo(f"\nInterrupted: {lines.so_far()}", err=True)
            raise
        except (TowerbusError, OSError) as error:
            raise TowerbusError(f"{error}. {lines.so_far()}") from error
        if bar is not None and bar.length:
            bar.update(bar.length - bar.pos)
    click.echo(f"{lines.done} events emitted", err=True)


def _progress() -> AbstractContextManager[Any]:
    """A bar for a person at a terminal, where standard input is a file; nothing else has a known end."""
    status = os.fstat(sys.stdin.fileno())
    if not sys.stderr.isatty() or not stat.S_ISREG(status.st_mode) or not status.st_size:
        return nullcontext()
    return click.progressbar(length=status.st_size, label="emitting", file=sys.stderr)
