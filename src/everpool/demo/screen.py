"""What people see: live in a terminal, line by line elsewhere, and in the end a table."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.table import Table
from rich.text import Text

from everpool.demo import words
from everpool.demo.lane import View
from everpool.demo.report import count
from everpool.demo.run import Moment, Plan
from everpool.demo.strips import BAD, DIM, GOOD, WAIT, WIDEST, progress, strips
from everpool.demo.timeline import SLOW

__all__ = ["Screen", "ending", "introduction"]

_LATEST = 4  # failures shown below the live timelines
_STEP = 4.0  # seconds between two lines of progress, where there is no terminal
_TOLD = 3  # failures of one pool that get a line each there


class Screen:
    """Shows a run while it goes on; a context manager."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._live: Live | None = None
        self._told: dict[str, int] = {}
        self._next_line = _STEP

    def __enter__(self) -> Self:
        console = self._console
        console.print(introduction(self._plan))
        starting = Text("Starting PostgreSQL ...", DIM)
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(starting, console=console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)
        else:
            console.print(starting)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, moment: Moment) -> None:
        """Bring what is seen up to *moment*."""
        if self._live is not None:
            self._live.update(_running(moment, self._console), refresh=True)
            return
        for view in moment.views:
            self._tell_failures(view)
        if moment.at >= self._next_line:
            self._next_line += _STEP
            standing = ", ".join(map(_standing, moment.views))
            self._say(f"{moment.at:5.1f} s  failed so far: {standing}")

    def _tell_failures(self, view: View) -> None:
        told = self._told.get(view.contestant.key, 0)
        failures = _failures([view])
        for line in failures[told:_TOLD]:
            self._say(line)
        if told < _TOLD < len(failures):
            self._say(f"         {view.contestant.title}: more failures are only counted")
        self._told[view.contestant.key] = len(failures)

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


def introduction(plan: Plan) -> RenderableType:
    """What is about to be seen."""
    parts = [Text("everpool demo", "bold")]
    for paragraph in words.introduction(plan):
        parts += [Text(), Text(paragraph)]
    return _readable(*parts, Text())


def ending(moment: Moment, console: Console) -> RenderableType:
    """How it went, and what follows."""
    views = moment.views
    numbers = {view.contestant.key: count(view) for view in views}
    before, line, after = words.cure(numbers["everpool"])
    cure = Text.assemble(before, (line, f"bold {GOOD}"), after)
    trouble = Text(words.trouble(numbers["psycopg_pool"], numbers["psycopg_pool_check"]))
    notes = [Text(words.own_record(view.own), DIM) for view in views if view.own]
    return _readable(
        strips(moment, console),
        Text(),
        _table(views),
        Text(),
        *_errors(views),
        *notes,
        Text(words.RESERVATION, DIM),
        Text(),
        trouble,
        Text(),
        cure,
    )


def _running(moment: Moment, console: Console) -> RenderableType:
    failures = _failures(moment.views)[-_LATEST:]
    room = min(console.width, WIDEST)
    latest = [Text(_cropped(line, room), no_wrap=True) for line in failures]
    return Group(progress(moment, console), strips(moment, console), Text(), *latest)


def _standing(view: View) -> str:
    return f"{view.contestant.title} {count(view).failed}"


def _failures(views: tuple[View, ...] | list[View]) -> list[str]:
    """A line for each failure so far, in the order they happened."""
    failures = [
        (seen.ended, view.contestant.title, *seen.error)
        for view in views
        for seen in view.requests
        if seen.outcome == "failed" and seen.ended is not None and seen.error is not None
    ]
    return [f"{at:5.1f} s  {title}: {kind}: {text}" for at, title, kind, text in sorted(failures)]


def _table(views: tuple[View, ...]) -> Table:
    rows = [count(view) for view in views]
    columns: list[tuple[str, list[Text]]] = [
        ("requests", [Text(str(row.requests)) for row in rows]),
        ("failed", [_flagged(row.failed) for row in rows]),
    ]
    if any(row.unfinished for row in rows):
        columns.append(("no\nanswer", [_flagged(row.unfinished) for row in rows]))
    if any(row.cut_in_hand for row in rows):
        columns.append(("cut\nin use", [Text(str(row.cut_in_hand)) for row in rows]))
    columns += [
        ("typical", [_time(row.typical) for row in rows]),
        ("99 of\n100", [_time(row.p99) for row in rows]),
        ("slowest", [_time(row.slowest) for row in rows]),
        ("cuts:\nquiet", [Text(str(row.cut["idle"])) for row in rows]),
        ("\nold", [Text(str(row.cut["age"])) for row in rows]),
    ]
    gap = max(0, 9 - len(columns))  # any of it fits into 80 columns
    table = Table(box=SIMPLE_HEAD, padding=(0, gap, 0, 0), header_style="bold", show_edge=False)
    table.add_column("", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True, vertical="bottom")
    for index, view in enumerate(views):
        table.add_row(view.contestant.title, *(cells[index] for _, cells in columns))
    return table


def _errors(views: tuple[View, ...]) -> list[Text]:
    """What the failures were, ending with an empty line if there were any."""
    lines = []
    for view in views:
        for error in count(view).errors:
            times = "once" if error["count"] == 1 else f"{error['count']} times"
            line = Text.assemble((f"{view.contestant.title}, {times}: ", BAD))
            lines.append(line.append(f"{error['class']}: {error['text']}"))
    return [*lines, Text()] if lines else []


def _flagged(number: int) -> Text:
    return Text(str(number), BAD if number else GOOD)


def _time(seconds: float) -> Text:
    return Text(words.span(seconds), WAIT if seconds >= SLOW else "")


def _cropped(line: str, room: int) -> str:
    return line if len(line) <= room else line[: room - 3] + "..."


def _readable(*parts: RenderableType) -> RenderableType:
    return Constrain(Group(*parts), WIDEST)
