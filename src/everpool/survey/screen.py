"""What people see of a survey: a bar on a terminal, lines elsewhere, and in the end what was found."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from ..environments import Entry
from . import words
from .findings import Findings, fits, python
from .observation import BUSY, KINDS, Observation
from .run import Progress, Result

# Where there is no terminal a line says now and then that it goes on.
LINE_EVERY = 60.0


class Screen:
    """Shows a survey while it goes on; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._said = ""
        self._next_line = 0.0
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[left]} left"),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("connecting", total=None, left="?")

    def __enter__(self) -> Self:
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
        standing = words.standing(progress)
        left = words.span(max(0.0, progress.expected - progress.now))
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=standing,
                completed=progress.now - progress.began,
                total=max(progress.expected, progress.now) - progress.began,
                left=left,
            )
        elif standing != self._said or progress.now >= self._next_line:
            self._console.print(f"{progress.now:7.1f} s  {standing}; about {left} left")
            self._said = standing
            self._next_line = progress.now + LINE_EVERY


def ending(console: Console, found: Findings, result: Result, nearest: Sequence[Entry]) -> None:
    """Print what was found, and what follows."""

    def say(title: str, lines: Sequence[str]) -> None:
        console.print(Text(title, "bold"))
        for line in lines:
            console.print(Text(f"  {line}"), soft_wrap=True)
        console.print()

    console.print()
    say("The server", words.facts(result.facts))
    say("Found", words.findings(found, result))
    console.print(Text("Observations", "bold"))
    console.print(_table(result.observations))
    console.print()
    if nearest:
        say(
            "Nearest in the catalogue",
            [
                f"{entry.name}: {entry.title}{' (fits)' if fits(found, entry.facts) else ''}"
                for entry in nearest
            ],
        )
    say("Settings", words.settings(found.policy))
    lines = [python(found.environments)]
    exact = [entry.name for entry in nearest if fits(found, entry.facts)]
    if exact:
        lines.append(f'ConnectionPool(conninfo, environment="{exact[0]}")')
    say("In Python, either of" if exact else "In Python", lines)


def _table(observations: Sequence[Observation]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("  probe", no_wrap=True)
    table.add_column("quiet for", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("then")
    for o in sorted(observations, key=lambda o: (KINDS.index(o.kind), o.quiet, o.age)):
        quiet = "" if o.kind == BUSY else words.span(o.quiet)
        then = Text(words.outcome(o), "red" if o.died else "")
        table.add_row(f"  {words.KINDS[o.kind]}", quiet, words.span(o.age), then)
    return table
