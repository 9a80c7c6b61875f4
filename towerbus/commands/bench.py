"""`towerbus bench`: load on a deployment, with every event accounted for."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any, Self

import click
import msgspec

from towerbus.bench import report
from towerbus.bench.content import MIN_SIZE
from towerbus.bench.interrupts import Interrupted, Interrupts
from towerbus.bench.loads import Name
from towerbus.bench.run import Run
from towerbus.commands.bench_options import EVENTS, PAGES, wish
from towerbus.commands.ending import NOT_DONE, fail
from towerbus.commands.urls import WEBSOCKET_URL, token_option
from towerbus.dialects import tower, v1
from towerbus.errors import ConfigError, TowerbusError
from towerbus.urls import shown

UNTRUE = 1
"""Exit code: something was not true."""
MOST_TOPICS = 1_000_000
"""Topics, or jobs, of a run at the most: they are in memory, and in every process."""


class _Finite(click.FloatRange):
    """A finite number above 0."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; `nan` and `inf` are no numbers here."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return found


_number = click.IntRange(1)
_topics = click.IntRange(1, MOST_TOPICS)
_positive = _Finite()


@click.command()
@click.option(
    "--url",
    envvar="TOWERBUS_URL",
    default=WEBSOCKET_URL,
    show_default=True,
    help="The WebSocket's URL [$TOWERBUS_URL].",
)
@click.option(
    "--http", metavar="URL", help="The HTTP listener's URL, to emit; found from --url where its port is 8051."
)
@token_option
@click.option(
    "--load", type=click.Choice([each.value for each in Name]), default="topic", show_default=True, help="See above."
)
@click.option(
    "--dialect",
    type=click.Choice([tower.NAME, v1.NAME]),
    help="What clients speak [default: tower; storm: towerbus.v1].",
)
@click.option("--compression", is_flag=True, help="Have events compressed (the server needs --compression on).")
@click.option("--clients", type=_number, default=1000, show_default=True, help="How many clients there are.")
@click.option(
    "--events", type=_number, help=f"How many events are emitted [default: {EVENTS}, or --rate times --seconds]."
)
@click.option(
    "--size", type=click.IntRange(MIN_SIZE), default=300, show_default=True, help="Bytes in an event's payload."
)
@click.option(
    "--burst", type=_number, help="Emit so many events at once [default: 1], and the next when all clients have them."
)
@click.option("--rate", type=_positive, help="Emit so many events a second instead, come what may.")
@click.option("--seconds", type=_positive, default=10.0, show_default=True, help="How long to emit at the rate.")
@click.option(
    "--topics", type=_topics, help=f"Topics to which events go in turn [default: 1; navigation: {PAGES} pages]."
)
@click.option(
    "--each", type=_number, default=1, show_default=True, help="To how many of the topics each client is subscribed."
)
@click.option(
    "--jobs", type=_topics, default=1000, show_default=True, help="tower-day: jobs; --rate is for all of their events."
)
@click.option(
    "--status-rate",
    type=_positive,
    default=50.0,
    show_default=True,
    help="tower-day: status changes a second, for all.",
)
@click.option(
    "--period", type=_positive, default=1.0, show_default=True, help="navigation: seconds between a client's steps."
)
@click.option("--slow", type=_number, help="slow: how many of the clients are slow [default: 2%].")
@click.option(
    "--slow-rate", type=_number, default=10_000, show_default=True, help="slow: bytes a second that they read."
)
@click.option("--busy", type=_number, help="idle: how many of the clients get events [default: 5%].")
@click.option(
    "--warm-up",
    type=click.IntRange(0),
    help="Events that come before and do not count [default: a tenth, at most 500].",
)
@click.option(
    "--window", type=_number, default=64, show_default=True, help="Handshakes under way at once, in each process."
)
@click.option(
    "--processes", type=_number, default=1, show_default=True, help="Processes of the bench that share the clients."
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="ADDRESS",
    help="Connect from this address; for more than some 25,000 clients. Repeatable.",
)
@click.option(
    "--pid",
    "pids",
    multiple=True,
    metavar="NAME=PID",
    help="Also measure this process; a NAME that begins with broker is counted apart. Repeatable.",
)
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False), help="The authority of the server's certificate (PEM)."
)
@click.option("--insecure", is_flag=True, help="Take any certificate.")
@click.option(
    "--mark",
    help="What the types of the bench's topics begin with [default: its own for each run, such as bench-1f9a.].",
)
@click.option(
    "--patience",
    type=_positive,
    default=30.0,
    show_default=True,
    help="Seconds without any progress after which it gives up.",
)
@click.option(
    "--json",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    help="Write all figures there, as JSON; - for standard output, without the table.",
)
def bench(**given: Any) -> None:
    """Put load on a server, and check every event at every client. Exit code 1 when one was lost, repeated, out of
    order, changed, or went to the wrong client, or when a client was dropped; 2 when there was nothing to check: the
    options are not right, or the server can't be reached or refuses; 130 after Ctrl-C, which ends a run with an account
    of what it has found so far.

    It needs a running server and a token that may subscribe to everything and emit everything, such as the one that
    `twistd -n towerbus` prints, or `towerbus token --key FILE --user bench --subscribe '*' --emit '*'`. The topics are
    the bench's own (jobs and job_events with types that begin with --mark), so that no other client sees its events.

    \b
    topic       all clients have the same topics (--topics, --each)
    tower-day   each client has the status of all jobs and the events of one (--jobs, --rate, --status-rate)
    navigation  each client replaces its topics once a --period and loses nothing of those that it keeps
    storm       all clients are cut twice, come back with their position, and get exactly what they missed
    slow        some clients read slowly (--slow, --slow-rate); the others must not notice
    idle        most clients get nothing; some do (--busy)

    What it costs the server (CPU a delivery and a handshake, memory a client) is measured where the server runs on
    this machine: who listens on the URL's ports, and each --pid.

    \b
    towerbus bench --clients 100
    towerbus bench --clients 10000 --rate 20 --pid worker=4711 --pid broker=4712 --json result.json
    towerbus bench --load storm --clients 2000 --rate 200
    towerbus bench --url wss://tower.example.com/websocket/ --http https://tower.example.com --clients 500
    """  # noqa: D301, D205, D415 - click's mark, and click's first paragraph
    interrupts = Interrupts()
    try:
        wanted = wish(given)
        _check_file(given["file"])
        with interrupts, _Progress() as progress:
            outcome = Run(wanted, progress.advance, interrupts).go()
    except (TowerbusError, OSError) as error:
        fail(str(error), NOT_DONE)
    except Interrupted as interrupted:
        fail(f"interrupted ({interrupts.name}): {interrupted}", interrupts.code)
    figures = report.result(wanted, outcome, shown(given["url"]).strip("'"))
    code = interrupts.code if figures["true"] else UNTRUE
    try:
        _write(figures, given["file"])
    except TowerbusError as error:
        # What was found counts for more than that it can't be read.
        found = "" if figures["true"] else f"not true: {figures['examples'][0]}; and "
        fail(f"{found}{error}", code or NOT_DONE)
    sys.exit(code)


def _write(figures: dict[str, Any], file: str | None) -> None:
    """Print the table, and write the figures where they are wanted.

    Raises:
        TowerbusError: They can't be written.
    """
    where = "standard output"
    try:
        if file != "-":
            click.echo(report.table(figures))
        if file is not None:
            text = msgspec.json.format(msgspec.json.encode(figures)) + b"\n"
            where = "standard output" if file == "-" else f"--json: {file!r}"
            with click.open_file(file, "wb") as out:
                out.write(text)
                out.flush()
    except OSError as error:
        raise TowerbusError(f"{where} can't be written: {error.strerror}") from None


def _check_file(file: str | None) -> None:
    """See that the figures can be written, before there are any.

    Raises:
        ConfigError: They can't.
    """
    if file is None or file == "-":
        return
    # Of a link it is what it points to that is made, and removed again.
    path = Path(os.path.realpath(file))
    there = path.exists()
    if there and not path.is_file() and not path.is_dir() and os.access(path, os.W_OK):
        # A pipe would wait for somebody who reads.
        return
    try:
        with path.open("ab"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"--json: {file!r} can't be written: {error.strerror}") from None


class _Progress:
    """A bar for a person at a terminal, one for each thing that is done."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: Any = None

    def advance(self, what: str, done: int, of: int) -> None:
        """So much is done."""
        if not sys.stderr.isatty():
            return
        if what != self._what:
            self._end()
            self._what = what
            if of:
                self._bar = click.progressbar(length=of, label=f"{what:<11}", file=sys.stderr)
                self._bar.__enter__()
        if self._bar is not None and done > self._bar.pos:
            self._bar.update(done - self._bar.pos)

    def _end(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
