"""``everpool lab torture`` as a command."""

from __future__ import annotations

import json
from math import inf

import click

from everpool.lab import BinariesNotFound, ServerError

from .report import as_json
from .run import Torture
from .run import torture as play

__all__ = ["torture"]

_CANNOT_RUN = 2
_INTERRUPTED = 130


@click.command()
@click.option(
    "--transactions",
    type=click.IntRange(min=8),
    default=10_000,
    show_default=True,
    help="How many, through everpool's pools.",
)
@click.option("--seed", default=1, show_default=True, help="What the faults are made from.")
@click.option(
    "--mode",
    type=click.Choice(("xid", "token", "all")),
    default="all",
    show_default=True,
    help="How everpool finds out what became of a COMMIT: as commit= of pool.run().",
)
@click.option(
    "--naive/--no-naive",
    default=True,
    show_default=True,
    help="Do the same with psycopg_pool and a loop that tries again.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Begin no further round after this time.",
)
@click.option("--json", "as_data", is_flag=True, help="Print the counts as JSON, nothing else.")
@click.pass_context
def torture(
    ctx: click.Context,
    transactions: int,
    seed: int,
    mode: str,
    naive: bool,
    minutes: float | None,
    as_data: bool,
) -> None:
    """Cut connections around COMMIT, and compare what pools say with what is in the tables.

    Starts PostgreSQL servers of its own, does transfers and increments through pool.run() and
    pool.attempts(), and cuts connections at every byte of COMMIT and of its answer, lets them fall
    silent, delivers COMMITs late, kills backends and servers, and promotes standbys that are
    behind.

    The status is 0 if nothing that everpool said was wrong, 1 if something was, and 2 if the
    torture could not run.
    """
    from rich.console import Console

    from .screen import Screen, ending

    plan = Torture(transactions, seed, mode, naive, inf if minutes is None else 60 * minutes)
    console = Console(stderr=as_data, highlight=False)
    try:
        with Screen(console, plan) as screen:
            report = play(plan, screen.show)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        ctx.exit(_INTERRUPTED)
    except (BinariesNotFound, ServerError, OSError) as error:
        raise _Trouble(str(error)) from error
    if as_data:
        click.echo(json.dumps(as_json(report), indent=2))
    else:
        ending(console, report)
    ctx.exit(1 if report.broken else 0)


class _Trouble(click.ClickException):
    exit_code = _CANNOT_RUN
