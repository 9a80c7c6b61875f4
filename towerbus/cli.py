"""The `towerbus` command, for people and scripts; its subcommands are in `commands/`."""

from __future__ import annotations

import sys
from importlib import import_module

import click

import towerbus
from towerbus.commands.ending import INTERRUPTED, fail
from towerbus.errors import TowerbusError

COMMANDS = ("bench", "doctor", "emit", "token", "watch")


class _Late(click.Group):
    """Imports a command when it is asked for: what `doctor` needs takes longer to load than `emit` takes to emit."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """The command of that name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"towerbus.commands.{cmd_name}"), cmd_name)
        return found


@click.group(cls=_Late, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(towerbus.__version__, prog_name="towerbus")
def cli() -> None:
    """Talk to a towerbus server.

    Start one with `twistd -n towerbus`: it prints lines for `watch` and `emit` that can be pasted.
    """


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
        fail(str(error))
