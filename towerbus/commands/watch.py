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
from towerbus.commands.ending import INTERRUPTED
from towerbus.commands.urls import WEBSOCKET_URL, has_token, token_option, websocket_url
from towerbus.dialects.reading import ALL
from towerbus.dialects.watching import Listener, Watch
from towerbus.errors import ConfigError, TowerbusError
from towerbus.positions import parse


@click.command()
@click.option(
    "--url",
    envvar="TOWERBUS_URL",
    default=WEBSOCKET_URL,
    show_default=True,
    help="The WebSocket's URL [$TOWERBUS_URL].",
)
@token_option
@click.option("--since", metavar="POSITION", help="Begin behind this position, with what was missed since.")
@click.option("--positions", is_flag=True, help="Print whole events: group, type, position, id, time, and the payload.")
@click.option("--json", "raw", is_flag=True, help="Print events just as they come, also on a terminal.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.argument("wanted", metavar="GROUP[:TYPE]...", nargs=-1, required=True)
def watch(
    url: str, token: str, since: str | None, positions: bool, raw: bool, count: int | None, wanted: tuple[str, ...]
) -> None:
    """Print events as they happen: one JSON object a line, just as it was emitted; on a terminal, indented.

    GROUP or GROUP:* stands for all types of a group that the token may see, GROUP:TYPE for one (job_events:42). After
    a lost connection it goes on where it was cut off. What is refused or lost, and when nothing may have come
    through, is told on standard error. Ctrl-C ends it.

    With --positions each line is the whole event, {"group", "type", "position", "id", "time", "data": payload}; its
    position is what --since takes.

    TOWERBUS_URL may also hold the HTTP listener's URL, as long as both listeners have their default ports (8051, 8052).

    \b
    towerbus watch jobs
    towerbus watch --positions 'job_events:*' > events
    towerbus watch jobs:status_changed job_events:42
    towerbus watch --count 1 jobs | jq .status
    """  # noqa: D301 - click's mark
    address = websocket_url(url)
    shown = "" if has_token(address) else token
    if not all("!" <= character <= "~" for character in shown):
        raise ConfigError("the token has blanks, line breaks or characters outside ASCII: it was not copied whole")
    if since is not None:
        parse(since)
    printer = Printer(pretty=sys.stdout.isatty() and not raw, whole=positions, count=count)
    _watch(address, shown, Watch(groups(wanted), Listener(printer.show, _notice), since), printer)


def groups(wanted: Iterable[str]) -> dict[str, list[str]]:
    """The groups message for the command's arguments.

    Raises:
        TopicError: One of them can't be a topic.
    """
    found: dict[str, list[str]] = {}
    for each in wanted:
        group, colon, type_ = each.partition(":")
        if colon and type_ != ALL:
            type_ = topics.topic(group, type_).type
        else:
            topics.checked_group(group)
            type_ = ALL
        found.setdefault(group, []).append(type_)
    return found


class Printer:
    """Prints events on standard output, unbuffered, until there were enough.

    Args:
        pretty: Indent them, for a person.
        whole: Print whole events, not only their payloads.
        count: How many are enough; None for no end.
    """

    def __init__(self, *, pretty: bool, whole: bool, count: int | None) -> None:
        self._pretty = pretty
        self._whole = whole
        self._left = count
        self.stop: Callable[[], None] = lambda: None
        self.trouble: TowerbusError | None = None

    def show(self, message: bytes, payload: bytes) -> None:
        """Print an event."""
        if self._left == 0:
            return
        text = message if self._whole else payload
        try:
            sys.stdout.buffer.write((_indented(text) if self._pretty else text) + b"\n")
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


def _watch(url: str, token: str, wanted: Watch, printer: Printer) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    from towerbus.wire.client import Watcher

    async def run() -> None:
        try:
            await watcher.run()
        except TowerbusError as error:
            printer.trouble = error

    watcher = Watcher(reactor, url, token, wanted, _notice)
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
