"""How commands end where they have not done what was asked for: an exit code, and one line that says why."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

import click

FAILED = 1
NOT_DONE = 2
"""Also click's exit code where the options are not right."""
INTERRUPTED = 128 + signal.SIGINT
"""After Ctrl-C, as shells have it."""


def fail(text: str, code: int = FAILED) -> NoReturn:
    """End with one line on standard error.

    Args:
        text: Why; line breaks in it become blanks.
        code: The exit code.

    Raises:
        SystemExit: Always.
    """
    click.echo("Error: " + " ".join(text.split()), err=True)
    sys.exit(code)
