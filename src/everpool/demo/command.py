"""``everpool demo`` as a command."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import click

from everpool.demo.report import as_json, everpool_held
from everpool.demo.run import Moment, Plan, play
from everpool.demo.traffic import LEAST_SECONDS
from everpool.lab import BinariesNotFound, ServerError

__all__ = ["demo"]

_CANNOT_RUN = 2
_INTERRUPTED = 130


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=LEAST_SECONDS, max=600),
    default=28,
    show_default=True,
    help="How long requests come.",
)
@click.option("--seed", default=1, show_default=True, help="What the requests are made from.")
@click.option("--silent", is_flag=True, help="Cut what is quiet without a sign, as routers do.")
@click.option("--json", "as_data", is_flag=True, help="Print the numbers as JSON, nothing else.")
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write a picture of how it went.",
)
@click.option(
    "--web", "live", is_flag=True, help="Show everpool alone, live in a browser, until Ctrl-C."
)
@click.pass_context
def demo(
    ctx: click.Context,
    seconds: float,
    seed: int,
    silent: bool,
    as_data: bool,
    svg: Path | None,
    live: bool,
) -> None:
    """See cut connections under psycopg_pool and under everpool.

    Starts a PostgreSQL server of its own, cuts connections to it as a database proxy in a cloud
    does, and counts whose requests fail. Takes about half a minute and leaves nothing behind.

    The status is 0 if everpool answered all requests, 1 if not, and 2 if the demo could not run.
    """
    if live:
        if as_data or svg is not None:
            raise click.UsageError("--web goes with neither --json nor --svg")
        _serve(Plan(seconds, seed, silent))
        return
    # Before the run, so that what is missing is not found out after it.
    if svg is not None and not svg.parent.is_dir():
        raise click.BadParameter(f"there is no directory {svg.parent}", param_hint="--svg")
    draw = _drawing() if svg is not None else None
    plan = Plan(seconds, seed, silent)
    try:
        moment = _play_silently(plan) if as_data else _play_on_screen(plan)
        if draw is not None and svg is not None:
            draw(moment, svg)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        ctx.exit(_INTERRUPTED)
    except (BinariesNotFound, ServerError, OSError) as error:
        raise _Trouble(str(error)) from error
    if as_data:
        click.echo(json.dumps(as_json(moment), indent=2))
    ctx.exit(0 if everpool_held(moment) else 1)


def _serve(plan: Plan) -> None:
    click.echo("Starting a PostgreSQL server …")
    try:
        from everpool.demo.live import serve_demo

        serve_demo(plan, lambda url: click.echo(f"The page: {url}\nCtrl-C ends it."))
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
    except (BinariesNotFound, ServerError, OSError, ModuleNotFoundError) as error:
        raise _Trouble(str(error)) from error


def _drawing() -> Callable[[Moment, Path], None]:
    from everpool.demo.picture import write

    return write


def _play_silently(plan: Plan) -> Moment:
    return play(plan, lambda moment: None)


def _play_on_screen(plan: Plan) -> Moment:
    from rich.console import Console

    from everpool.demo.screen import Screen, ending

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no sign is worth an end in the middle
    console = Console(highlight=False)
    with Screen(console, plan) as screen:
        moment = play(plan, screen.show)
    console.print(ending(moment, console))
    return moment


class _Trouble(click.ClickException):
    exit_code = _CANNOT_RUN
