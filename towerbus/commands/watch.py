"""`towerbus watch`: prints events as they happen."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable

import click

from towerbus import topics
from towerbus.commands.urls import WEBSOCKET_URL, has_token, token_option, websocket_url
from towerbus.errors import ConfigError, TowerbusError

TYPES = {"jobs": ["status_changed", "summary"], "schedules": ["changed"], "inventories": ["status_changed"]}
"""What `watch GROUP` means for groups with few types."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the signal's number."""


@click.command()
@click.option(
    "--url",
    envvar="TOWERBUS_URL",
    default=WEBSOCKET_URL,
    show_default=True,
    help="The WebSocket's URL [$TOWERBUS_URL].",
)
@token_option
@click.option("--json", "raw", is_flag=True, help="Print events just as they come, also on a terminal.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.argument("wanted", metavar="GROUP[:TYPE]...", nargs=-1, required=True)
def watch(url: str, token: str, raw: bool, count: int | None, wanted: tuple[str, ...]) -> None:
    """Print events as they happen: one JSON object a line, just as it was emitted; on a terminal, indented.

    A group is given with a type (job_events:42); jobs, schedules and inventories stand for all their types. What is
    refused, and a connection that is lost and made again, is told on standard error. Ctrl-C ends it.

    TOWERBUS_URL may also hold the HTTP listener's URL, as long as both listeners have their default ports (8051, 8052).

    \b
    towerbus watch jobs
    towerbus watch jobs:status_changed job_events:42
    towerbus watch --count 1 jobs | jq .status
    """  # noqa: D301 - click's mark
    address = websocket_url(url)
    shown = "" if has_token(address) else token
    if not all("!" <= character <= "~" for character in shown):
        raise ConfigError("the token has blanks, line breaks or characters outside ASCII: it was not copied whole")
    _watch(address, shown, groups(wanted), Printer(pretty=sys.stdout.isatty() and not raw, count=count))


def groups(wanted: Iterable[str]) -> dict[str, list[str]]:
    """The groups message for the command's arguments.

    Raises:
        TopicError: One of them can't be a topic.
        ConfigError: A group needs a type and has none.
    """
    found: dict[str, list[str]] = {}
    for each in wanted:
        group, colon, type_ = each.partition(":")
        if colon:
            types = [topics.topic(group, type_).type]
        elif group in TYPES:
            types = TYPES[group]
        else:
            raise ConfigError(f"{group!r} needs a type, as in {group}:42; only {', '.join(TYPES)} may stand alone")
        found.setdefault(group, []).extend(types)
    return found


class Printer:
    """Prints events on standard output, unbuffered, until there were enough.

    Args:
        pretty: Indent them, for a person.
        count: How many are enough; None for no end.
    """

    def __init__(self, *, pretty: bool, count: int | None) -> None:
        self._pretty = pretty
        self._left = count
        self.stop: Callable[[], None] = lambda: None
        self.trouble: TowerbusError | None = None

    def show(self, payload: bytes) -> None:
        """Print an event."""
        if self._left == 0:
            return
        try:
            sys.stdout.buffer.write((_indented(payload) if self._pretty else payload) + b"\n")
            sys.stdout.buffer.flush()
        except OSError as error:
            self._lost(error)
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.stop()

    def _lost(self, error: OSError) -> None:
        """Stop: whoever reads has had enough, or the disk is full."""
        if error.errno != errno.EPIPE:
            self.trouble = TowerbusError(f"can't print: {error}")
        # What stdout still holds must not be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        self._left = 1


def _indented(payload: bytes) -> bytes:
    text = json.dumps(json.loads(payload), indent=2, ensure_ascii=False)
    return "\n".join(_plain(line) for line in text.split("\n")).encode("utf-8", "replace")


def _plain(text: str) -> str:
    """Text for a terminal: what could steer it is written out."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _notice(text: str) -> None:
    click.echo(_plain(text), err=True)


def _watch(url: str, token: str, wanted: dict[str, list[str]], printer: Printer) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    from towerbus.wire.client import Watcher

    async def run() -> None:
        try:
            await watcher.run()
        except TowerbusError as error:
            printer.trouble = error

    watcher = Watcher(reactor, url, token, wanted, printer.show, _notice)
    printer.stop = watcher.stop
    # Twisted would end on Ctrl-C with exit code 0 and a word in a log that nobody reads.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        react(lambda _: Deferred.fromCoroutine(run()))
    except SystemExit as end:
        if printer.trouble is not None:
            raise printer.trouble from None
        if end.code:
            raise TowerbusError("the watcher failed") from None
