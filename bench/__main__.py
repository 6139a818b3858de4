"""``python -m bench``: run the cases, print what they found beside what was asked."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from . import cases_asyncio, cases_threads, cases_work, footprint, growth, observed
from .footprint import idle_cpu_beside
from .server import Durable, server
from .setup import FULL, QUICK, TINY, Case, Effort, Figure, Setup, load

ALL: dict[str, Case] = {
    case.name: case
    for module in (cases_threads, cases_asyncio, cases_work, growth, footprint, observed)
    for case in module.CASES
}
EFFORTS = {"full": FULL, "quick": QUICK, "tiny": TINY}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure everpool beside psycopg_pool."
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--only", action="append", choices=list(ALL), metavar="NAME", help=", ".join(ALL)
    )
    parser.add_argument(
        "--quick",
        action="store_const",
        dest="effort",
        const="quick",
        help="fewer rounds: a first look",
    )
    parser.add_argument(
        "--effort", choices=list(EFFORTS), default="full", help="default: %(default)s"
    )
    parser.add_argument("--dsn", help="measure on this server instead of starting one")
    parser.add_argument(
        "--self-check",
        action="store_true",
        help="psycopg_pool on both sides: ratios near 1 say that the comparison is fair",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a figure is not met")
    return parser.parse_args(argv)


def met(case: Case, figure: Figure) -> bool:
    return figure.void is None and figure.value <= case.asked


def as_json(case: Case, figure: Figure) -> dict[str, Any]:
    return {
        "name": case.name,
        "title": case.title,
        "measure": case.measure,
        "value": figure.value,
        "asked": case.asked,
        "met": met(case, figure),
        "everpool": figure.ours,
        "psycopg_pool": figure.theirs,
        "unit": figure.unit,
        "statistic": figure.statistic,
        "void": figure.void,
        "detail": figure.detail,
    }


def run(setup: Setup, cases: Sequence[Case], console: Console) -> list[tuple[Case, Figure]]:
    """Run `cases` one after the other, the idle pools beside them."""
    beside = any(case.name == "idle-cpu" for case in cases)
    results: list[tuple[Case, Figure]] = []
    with idle_cpu_beside(setup) if beside else nullcontext() as idle:
        for case in cases:
            with console.status(f"{case.title} …"):
                if idle is not None and case.name == "idle-cpu":
                    results.append((case, idle.figure()))
                else:
                    results.append((case, case.run(setup)))
    return results


def table(results: Sequence[tuple[Case, Figure]]) -> Table:
    view = Table(box=None, pad_edge=False)
    view.add_column("work")
    for heading in ("everpool", "psycopg_pool", "figure", "asked"):
        view.add_column(heading, justify="right")
    view.add_column("met")
    view.add_column("taken as", style="dim")
    for case, figure in results:
        good = met(case, figure)
        theirs = "" if figure.theirs is None else f"{figure.theirs:.3g} {figure.unit}"
        view.add_row(
            case.title,
            f"{figure.ours:.3g} {figure.unit}",
            theirs,
            f"[bold]{figure.value:.3f}[/]",
            f"≤ {case.asked:g}",
            "[green]yes[/]" if good else "[red]no[/]",
            f"{case.measure}, {figure.void or figure.statistic}",
        )
    return view


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    effort: Effort = EFFORTS[options.effort or "full"]
    theirs = load("psycopg_pool")
    ours = theirs if options.self_check else load("everpool")
    cases = [ALL[name] for name in options.only or ALL]
    console = Console(stderr=options.json, width=None if sys.stdout.isatty() else 140)
    load_before, started = os.getloadavg()[0], time.perf_counter()
    with server(options.dsn) as dsn, Durable(options.dsn) as durable:
        with psycopg.connect(dsn) as conn:
            version = conn.info.parameter_status("server_version")
        results = run(Setup(dsn, ours, theirs, effort, durable), cases, console)
    seconds = time.perf_counter() - started
    machine = {
        "ours": f"{ours.name} {ours.version}",
        "theirs": f"{theirs.name} {theirs.version}",
        "psycopg": psycopg.__version__,
        "libpq": psycopg.pq.__impl__,
        "python": platform.python_version(),
        "postgresql": version,
        "cores": os.cpu_count(),
        "load_before": round(load_before, 1),
        "effort": options.effort or "full",
        "seconds": round(seconds, 1),
    }
    if options.json:
        figures = [as_json(case, figure) for case, figure in results]
        json.dump({**machine, "results": figures}, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        console.print(table(results))
        console.print("[dim]" + ", ".join(f"{key} {value}" for key, value in machine.items()))
    return int(options.strict and not all(met(case, figure) for case, figure in results))


if __name__ == "__main__":
    sys.exit(main())
