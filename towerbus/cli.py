"""The `towerbus` command: emit, watch and token, for people and scripts."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click

import towerbus
from towerbus import topics
from towerbus.emitter import Emitter
from towerbus.errors import ConfigError, NotConfirmed, PeerError, TowerbusError
from towerbus.event import check_payload

WEBSOCKET_URL = "ws://127.0.0.1:8051/websocket/"
HTTP_URL = "http://127.0.0.1:8052"
BATCH = 200
"""Lines that go in one request."""
TYPES = {"jobs": ["status_changed", "summary"], "schedules": ["changed"], "inventories": ["status_changed"]}
"""What `watch GROUP` means for groups with few types."""

_token = click.option("--token", envvar="TOWERBUS_TOKEN", default="", help="A token [default: $TOWERBUS_TOKEN].")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(towerbus.__version__, prog_name="towerbus")
def cli() -> None:
    """Talk to a towerbus server.

    Start one with `twistd -n towerbus`: it prints lines for `watch` and `emit` that can be pasted.
    """


@cli.command()
@click.option(
    "--url", envvar="TOWERBUS_URL", default=HTTP_URL, show_default=True, help="The HTTP listener's URL [$TOWERBUS_URL]."
)
@_token
@click.option("--id", "id_", help="The event's id; an id that was emitted before is not repeated.")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for the confirmation.")
@click.argument("group")
@click.argument("type_", metavar="TYPE")
@click.argument("payload", metavar="JSON|-")
def emit(url: str, token: str, id_: str | None, timeout: float, group: str, type_: str, payload: str) -> None:
    """Emit an event; exit code 0 only when it is confirmed.

    JSON is the payload, a non-empty object. With - each line of standard input is a payload, and they are emitted in
    this order.

    \b
    towerbus emit jobs status_changed '{"unified_job_id": 1, "status": "running"}'
    some-program | towerbus emit job_events 42 -
    """  # noqa: D301 - click's mark
    topic = topics.emittable(group, type_)
    with Emitter(url, token, timeout=timeout) as emitter:
        if payload != "-":
            check_payload(payload.encode())
            click.echo(emitter.emit(topic.group, topic.type, payload.encode(), id_))
        elif id_ is not None:
            raise ConfigError("--id is for one event: it can't go with -")
        else:
            _emit_lines(emitter, topic)


def _emit_lines(emitter: Emitter, topic: topics.Topic) -> None:
    """Emit standard input, line by line, and say on a terminal how far it is."""
    done, batch = 0, []
    size = os.fstat(sys.stdin.fileno()).st_size
    with click.progressbar(
        length=max(size, 1), label="emitting", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:
        try:
            for line in _payloads(sys.stdin.buffer):
                batch.append({"group": topic.group, "type": topic.type, "payload": line})
                if len(batch) >= BATCH:
                    done += len(emitter.emit_many(batch))
                    bar.update(sum(len(each["payload"]) + 1 for each in batch))
                    batch.clear()
            done += len(emitter.emit_many(batch))
            bar.update(max(size, 1))
        except TowerbusError as error:
            raise click.ClickException(f"{error} ({done} events were emitted before)") from error
    click.echo(f"{done} events emitted", err=True)


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def _payloads(lines: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                check_payload(line.strip())
            except PeerError as error:
                raise PeerError(f"line {number}: {error}") from error
            yield line.strip()


@cli.command()
@click.option(
    "--url",
    envvar="TOWERBUS_URL",
    default=WEBSOCKET_URL,
    show_default=True,
    help="The WebSocket's URL [$TOWERBUS_URL].",
)
@_token
@click.option(
    "--json", "raw", is_flag=True, help="Print events just as they come; without it, on a terminal, indented."
)
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.argument("wanted", metavar="GROUP[:TYPE]...", nargs=-1, required=True)
def watch(url: str, token: str, raw: bool, count: int | None, wanted: tuple[str, ...]) -> None:
    """Print events as they happen, one JSON object a line.

    A group is given with a type (job_events:42); jobs, schedules and inventories stand for all their types. What is
    refused, and a connection that is lost and made again, is told on standard error.

    \b
    towerbus watch jobs
    towerbus watch jobs:status_changed job_events:42
    """  # noqa: D301 - click's mark
    parts = urlsplit(url)
    if parts.scheme not in {"ws", "wss"} or not parts.hostname:
        raise ConfigError(f"{url!r} is not the URL of a WebSocket; wanted is one such as {WEBSOCKET_URL}")
    if "token" in parse_qs(parts.query):
        token = ""
    pretty = sys.stdout.isatty() and not raw
    _watch(url, token, _groups(wanted), pretty=pretty, count=count)


def _groups(wanted: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for each in wanted:
        group, colon, type_ = each.partition(":")
        if colon:
            types = [topics.topic(group, type_).type]
        elif group in TYPES:
            types = TYPES[group]
        else:
            raise ConfigError(f"{group!r} needs a type, as in {group}:42; only {', '.join(TYPES)} may stand alone")
        groups.setdefault(group, []).extend(types)
    return groups


def _watch(url: str, token: str, groups: dict[str, list[str]], *, pretty: bool, count: int | None) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    from towerbus.wire.client import Watcher

    left = [count]
    trouble: list[TowerbusError] = []

    def show(payload: bytes) -> None:
        if left[0] == 0:
            return
        text = json.dumps(json.loads(payload), indent=2, ensure_ascii=False) if pretty else payload.decode()
        try:
            click.echo(text)
        except BrokenPipeError:
            # Whoever reads has had enough; what stdout still holds must not be flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            left[0] = 1
        if left[0] is not None:
            left[0] -= 1
            if left[0] == 0:
                watcher.stop()

    async def run() -> None:
        try:
            await watcher.run()
        except TowerbusError as error:
            trouble.append(error)

    watcher = Watcher(reactor, url, token, groups, show, lambda text: click.echo(text, err=True))
    # Twisted would end on Ctrl-C with exit code 0 and a word in a log that nobody reads.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        react(lambda _: Deferred.fromCoroutine(run()))
    except SystemExit as end:
        if trouble or end.code:
            raise click.ClickException(str(trouble[0]) if trouble else "the watcher failed") from None


@cli.command()
@click.option("--key", required=True, help="File with an HMAC secret of 32 bytes or more, or a PEM private key.")
@click.option("--user", required=True, help="The user's id.")
@click.option("--name", default="", help="What a person would call the user.")
@click.option("--subscribe", multiple=True, metavar="GROUP/TYPE", help="A topic it may see; * for a part. Repeatable.")
@click.option("--emit", "emits", multiple=True, metavar="GROUP/TYPE", help="A topic that it may emit to. Repeatable.")
@click.option("--expires", type=click.FloatRange(1), help="Seconds that it is good for; for ever by default.")
def token(
    key: str, user: str, name: str, subscribe: tuple[str, ...], emits: tuple[str, ...], expires: float | None
) -> None:
    """Print a token for a server that runs with --auth jwt:FILE, and nothing else.

    \b
    towerbus token --key key --user 7 --subscribe 'job_events/*' --expires 3600
    towerbus token --key key --user producer --emit 'jobs/*' --emit 'job_events/*'
    """  # noqa: D301 - click's mark
    from towerbus.auth.jwt import mint

    click.echo(
        mint(
            key,
            user=int(user) if user.isdecimal() else user,
            name=name,
            subscribe=subscribe,
            emit=emits,
            expires_in=expires,
        )
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command; every error is one line on standard error, and exit code 1."""
    try:
        cli.main(arguments, standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except NotConfirmed as error:
        again = f"; to try again without repeating it: --id {error.id}" if len(error.ids) == 1 else ""
        _fail(f"{error}{again}")
    except TowerbusError as error:
        _fail(str(error))


def _fail(text: str) -> Any:
    click.echo(f"Error: {text}", err=True)
    sys.exit(1)
