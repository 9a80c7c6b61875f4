"""The reloader: restarts whole processes when a Python file changes.

It waits until a burst of changes is over, so that the last of them always counts; changes that come during a restart
are the next burst. A file that can't be compiled is shown, and what runs goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from xmlrpc.client import Fault

import click
from supervisor.xmlrpc import Faults
from watchfiles import Change, watch

import towerbus
from towerbus.dev.processes import Outcome, Processes
from towerbus.dev.sources import Sources, counts

QUIET = 0.3
"""Seconds without a change that end a burst."""
LONGEST = 3.0
"""Seconds after which a burst that does not end is acted on all the same."""
_NAMED = 3


@click.command()
@click.option("--socket", required=True, help="Path of supervisord's Unix socket.")
@click.option("--group", required=True, help="The group of processes that are restarted.")
@click.argument("directories", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(socket: str, group: str, directories: tuple[Path, ...]) -> None:
    """Restart the processes of a group when a Python file in DIRECTORIES changes (towerbus itself by default).

    Processes that were stopped by hand stay stopped.
    """
    watched = directories or (Path(towerbus.__file__).parent,)
    try:
        run(tuple(each.resolve() for each in watched), Processes(socket, group))
    except (OSError, Fault) as error:
        if isinstance(error, Fault) and error.faultCode == Faults.SHUTDOWN_STATE:
            return
        click.echo(f"reloader: {error}", err=True)
        sys.exit(1)


def run(directories: tuple[Path, ...], processes: Processes) -> None:
    """Watch and restart, until the process is told to end.

    Args:
        directories: Where the files are; absolute.
        processes: What is restarted.
    """
    sources = Sources()
    there = [path for root in directories for path in root.rglob("*.py") if counts(path, root)]
    sources.look(there)
    _tell_broken(sources)
    click.echo(f"reloader: watching {', '.join(map(str, directories))}")
    for paths in chain(early(there, processes.begun()), bursts(directories)):
        click.echo(f"reloader: changed: {_names(paths)}")
        sources.look(paths)
        if sources.broken:
            _tell_broken(sources)
        else:
            _tell(processes.restart())


def bursts(directories: tuple[Path, ...]) -> Iterator[list[Path]]:
    """The files that were changed in each burst."""

    def ours(_: Change, name: str) -> bool:
        path = Path(name)
        return any(path.is_relative_to(root) and counts(path, root) for root in directories)

    milliseconds = {"debounce": int(LONGEST * 1000), "step": int(QUIET * 1000)}
    for changes in watch(*directories, watch_filter=ours, raise_interrupt=False, **milliseconds):  # type: ignore[arg-type]
        yield sorted({Path(name) for _, name in changes})


def early(paths: Iterable[Path], begun: float) -> Iterator[list[Path]]:
    """The files that were saved before anybody watches them.

    Args:
        paths: The files.
        begun: When the processes were started, some seconds ago, in seconds since the epoch. What is saved while they
            are restarted for one burst is the next.
    """
    since = begun
    while saved := {path: time for path, time in _saved(paths) if time > since}:
        since = max(saved.values())
        yield list(saved)


def _saved(paths: Iterable[Path]) -> Iterator[tuple[Path, float]]:
    for path in paths:
        with suppress(OSError):  # it has gone
            yield path, path.stat().st_mtime


def _tell_broken(sources: Sources) -> None:
    for path, fault in sources.broken.items():
        click.echo(f"reloader: {path}: {fault}; what runs goes on until this is mended")


def _tell(outcome: Outcome) -> None:
    for text, names in (
        ("restarted", outcome.restarted),
        ("started, and ended at once (see above); the next change tries again", outcome.failed),
        ("left as it is, stopped by hand", outcome.left),
    ):
        for name in names:
            click.echo(f"reloader: {name}: {text}")


def _names(paths: Iterable[Path]) -> str:
    names = [path.name for path in paths]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


if __name__ == "__main__":
    main()
