"""The `towerbus` command, for people and scripts; its subcommands are in `commands/`."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

import towerbus
from towerbus.commands.bench import bench
from towerbus.commands.doctor import doctor
from towerbus.commands.emit import emit
from towerbus.commands.token import token
from towerbus.commands.watch import INTERRUPTED, watch
from towerbus.errors import TowerbusError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(towerbus.__version__, prog_name="towerbus")
def cli() -> None:
    """Talk to a towerbus server.

    Start one with `twistd -n towerbus`: it prints lines for `watch` and `emit` that can be pasted.
    """


for _command in (emit, watch, token, doctor, bench):
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; every error is one line on standard error, and exit code 1."""
    try:
        sys.exit(cli.main(arguments, standalone_mode=False))
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (TowerbusError, OSError) as error:
        _fail(str(error))


def _fail(text: str) -> NoReturn:
    click.echo("Error: " + " ".join(text.split()), err=True)
    sys.exit(1)
