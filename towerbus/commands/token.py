"""`towerbus token`: makes tokens for a server that runs with `--auth jwt:`."""

from __future__ import annotations

import click


@click.command()
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

    click.echo(mint(key, user=user, name=name, subscribe=subscribe, emit=emits, expires_in=expires))
