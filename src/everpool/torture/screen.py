"""What people see: how far it has come, and in the end a table."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from .report import NOTHING, PROBLEMS, Report
from .run import Progress, Torture

__all__ = ["Screen", "ending"]

_COLUMNS = {
    "transactions": "done",
    "struck": "struck",
    "repeated": "tried\nagain",
    "unknown": "unknown",
    "lost": "lost",
    "doubled": "doubled",
    "false": "false",
    "lost by history": "by\nhistory",
}
_TOLD = 20  # broken requirements that get a line each


class Screen:
    """Shows a run while it goes on; a context manager."""

    def __init__(self, console: Console, plan: Torture) -> None:
        self._console = console
        self._plan = plan
        self._bar: Bar | None = None
        self._rounds = 0
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Bar(
                TextColumn("{task.completed:.0f} of {task.total:.0f}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[broken]} broken"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, broken=0)

    def __enter__(self) -> Self:
        plan = self._plan
        self._console.print(
            f"{plan.transactions} transactions, seed {plan.seed}: connections are cut around"
            " COMMIT, servers killed, standbys promoted. Then the tables are compared with what"
            " the pools said.",
            soft_wrap=True,
        )
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Bring what is seen up to date."""
        report = progress.report
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=progress.done,
                total=progress.total,
                broken=len(report.broken),
            )
        elif report.rounds != self._rounds:
            self._rounds = report.rounds
            self._console.print(
                f"{report.took:7.1f} s  {progress.done} of {progress.total},"
                f" {report.cuts} cuts, {len(report.broken)} broken"
            )


def ending(console: Console, report: Report) -> None:
    """Print what came of it."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for title in _COLUMNS.values():
        table.add_column(title, justify="right", vertical="bottom", no_wrap=True)
    for lane, kinds in report.ordered():
        total = report.totals(lane)
        total["struck"] = total["transactions"] - kinds[NOTHING]["transactions"]
        cells = [
            Text(str(total[column]), "red" if column in PROBLEMS and total[column] else "")
            for column in _COLUMNS
        ]
        table.add_row(lane, *cells)
    console.print()
    console.print(table)
    events = ", ".join(f"{count} × {what}" for what, count in report.events.items())
    rate = report.transactions / report.took if report.took else 0.0
    console.print(
        f"{report.cuts} connections cut; {events}.\n"
        f"{report.transactions} transactions through everpool in {report.took:.0f} s"
        f" ({rate:.0f}/s).",
        soft_wrap=True,
    )
    for line in report.broken[:_TOLD]:
        console.print(Text(f"BROKEN: {line}", "red"), soft_wrap=True)
    if len(report.broken) > _TOLD:
        console.print(f"… and {len(report.broken) - _TOLD} more")
