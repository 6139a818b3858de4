"""``everpool survey`` as a command."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from .findings import find
from .observation import BUDGET_PASSES, CONNECTIONS, LEAST_CONNECTIONS, MAX_IDLE, Limits
from .run import Progress, Result, Unreachable
from .run import survey as measure
from .state import Unreadable, as_json, load, nearest, save
from .words import intention

__all__ = ["survey"]

_CANNOT_CONNECT, _INTERRUPTED = 1, 130

_SECONDS = click.FloatRange(min=0, min_open=True, max=7 * 86400)


@click.command()
@click.argument("dsn")
@click.option(
    "--connections",
    type=click.IntRange(min=LEAST_CONNECTIONS, max=100),
    default=CONNECTIONS,
    show_default=True,
    help="The most connections that are ever open at once.",
)
@click.option(
    "--max-idle",
    type=_SECONDS,
    default=MAX_IDLE,
    show_default=True,
    help="The longest that a connection is left alone, in seconds.",
)
@click.option(
    "--budget",
    type=_SECONDS,
    help=f"The most seconds that it takes.  [default: {BUDGET_PASSES:g} times --max-idle]",
)
@click.option(
    "--save",
    "target",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write what is known to this file, as JSON, again and again.",
)
@click.option(
    "--resume",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Go on from such a file, and write to it.",
)
@click.option("--json", "as_data", is_flag=True, help="Print the result as JSON, nothing else.")
@click.pass_context
def survey(
    ctx: click.Context,
    dsn: str,
    connections: int,
    max_idle: float,
    budget: float | None,
    target: Path | None,
    source: Path | None,
    as_data: bool,
) -> None:
    """Measure what cuts connections on the way to a database.

    DSN is a libpq connection string or URL; with "" libpq's environment variables say where to
    connect. Many connections are left alone, each for its own time, and what becomes of them
    tells the idle cut, the maximum age, and how connections end. It takes as long as --max-idle,
    and up to three times that where connections end in silence.

    The status is 0 if it went to its end, 1 if it could not connect, 2 for a wrong call, and 130
    if it was interrupted; what is known by then is told.
    """
    earlier = None
    if source is not None:
        try:
            earlier = load(source)
        except Unreadable as error:
            raise click.BadParameter(str(error), param_hint="--resume") from None
        # What is not given now stays as it was.
        default = click.core.ParameterSource.DEFAULT
        if ctx.get_parameter_source("connections") is default:
            connections = earlier.limits.connections
        if ctx.get_parameter_source("max_idle") is default:
            max_idle = earlier.limits.max_idle
        if ctx.get_parameter_source("budget") is default:
            budget = earlier.limits.budget
        target = target or source
    if target is not None and not target.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {target.parent}", param_hint="--save")
    limits = Limits(connections, max_idle, budget)
    try:
        result, interrupted = _show(dsn, limits, earlier, target, as_data)
        if target is not None:
            save(target, result)
    except Unreachable as error:
        raise _Trouble(f"could not connect: {error}") from None
    except OSError as error:
        raise _Trouble(f"{error.strerror}: {error.filename}") from None
    if as_data:
        click.echo(json.dumps(as_json(result), indent=2))
    ctx.exit(_INTERRUPTED if interrupted else _CANNOT_CONNECT if result.trouble else 0)


def _show(
    dsn: str, limits: Limits, earlier: Result | None, target: Path | None, as_data: bool
) -> tuple[Result, bool]:
    """Run it, with progress for people; what they read goes to standard error beside JSON."""
    from rich.console import Console

    from .screen import Screen, ending

    console = Console(stderr=as_data, highlight=False)
    console.print(intention(limits), soft_wrap=True)
    with ExitStack() as stack:
        screen = stack.enter_context(Screen(console))
        saved = -1

        def tell(progress: Progress) -> None:
            nonlocal saved
            if saved < 0 and earlier and earlier.facts.server != progress.facts.server:
                console.print("Warning: the file to go on from is of another server.")
            screen.show(progress)
            if target is not None and len(progress.observations) != saved:
                save(
                    target,
                    Result(limits, progress.facts, list(progress.observations), progress.now),
                )
            saved = len(progress.observations)

        result, interrupted = asyncio.run(_run(dsn, limits, earlier, tell))
    if not as_data:
        found = find(result.observations, limits)
        ending(console, found, result, nearest(found))
    return result, interrupted


async def _run(
    dsn: str, limits: Limits, earlier: Result | None, tell: Callable[[Progress], None]
) -> tuple[Result, bool]:
    """A survey that a signal ends in good order, and a second one at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def interrupt() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, interrupt)
    result = await measure(dsn, limits, earlier=earlier, tell=tell, stop=stop)
    return result, stop.is_set()


class _Trouble(click.ClickException):
    exit_code = _CANNOT_CONNECT
