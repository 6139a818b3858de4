"""The timelines, drawn with characters."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from everpool.demo import timeline
from everpool.demo.report import count
from everpool.demo.run import Moment

__all__ = ["BAD", "CUT", "DIM", "GOOD", "WAIT", "WIDEST", "progress", "strips"]

WIDEST = 100  # columns; longer lines are hard to read
_LABEL = 14
_TALLY = 12

# Named colours: each terminal shows its own idea of them, on a light or a dark background.
GOOD, BAD, WAIT, CUT, DIM = "green", "bold red", "yellow", "magenta", "dim"

Sign = tuple[str, str]  # a character and its style
_NOTHING: Sign = (" ", "")


class _Signs:
    """What the cells look like; plain characters where the output cannot carry others."""

    def __init__(self, console: Console) -> None:
        fancy = console.encoding.lower().startswith("utf")
        self.cells: dict[timeline.Cell, Sign] = {
            "nothing": _NOTHING,
            "ok": ("━" if fancy else "-", GOOD),
            "in hand": ("○" if fancy else "o", WAIT),
            "waiting": ("╍" if fancy else "~", WAIT),
            "failed": ("✗" if fancy else "x", BAD),
        }
        self.cut: Sign = ("╵" if fancy else "'", CUT)
        self.spells: dict[timeline.Kind, Sign] = {
            "busy": ("▆" if fancy else "#", DIM),
            "few": ("▂" if fancy else ".", DIM),
            "quiet": _NOTHING,
        }


def strips(moment: Moment, console: Console) -> RenderableType:
    """How many visitors there are, and below it what each pool makes of them."""
    signs = _Signs(console)
    seconds, width = moment.plan.seconds, _width(console)
    spells = timeline.spell_cells(moment.plan.spells, seconds, width)
    lines = [_axis(seconds, width), _line("visitors", (signs.spells[kind] for kind in spells))]
    seen: set[timeline.Cell] = set()
    for view in moment.views:
        numbers = count(view)
        cells = timeline.request_cells(view, seconds, width)
        seen.update(cells)
        line = _line(view.contestant.title, (signs.cells[cell] for cell in cells))
        line.append(f"{numbers.failed:>5} failed", BAD if numbers.failed else GOOD)
        cuts = timeline.cut_cells(view, seconds, width)
        below = _line("", (signs.cut if is_cut else _NOTHING for is_cut in cuts))
        below.append(f"{numbers.cuts:>5} cut", DIM)
        lines += [line, below]
    return Group(*lines, Text(), _legend(signs, "in hand" in seen))


def progress(moment: Moment, console: Console) -> RenderableType:
    """A bar above the timelines, in step with them."""
    seconds = moment.plan.seconds
    grid = Table.grid()
    grid.add_column(width=_LABEL)
    grid.add_column(width=_width(console))
    grid.add_column(width=_TALLY, justify="right")
    bar = ProgressBar(total=seconds, completed=min(moment.at, seconds), width=_width(console))
    grid.add_row("", bar, f"{min(moment.at, seconds):.0f} of {seconds:.0f} s")
    return grid


def _width(console: Console) -> int:
    return max(20, min(console.width, WIDEST) - _LABEL - _TALLY)


def _axis(seconds: float, width: int) -> Text:
    step = next(step for step in (1, 2, 4, 5, 10, 20, 60, 600, 10**9) if seconds / step <= 8)
    axis = [" "] * (width + 4)
    for tick in range(0, int(seconds) + 1, step):
        at = int(tick / seconds * width)
        if at < width:
            axis[at : at + len(str(tick))] = str(tick)
    return Text("seconds".ljust(_LABEL) + "".join(axis).rstrip(), DIM)


def _line(label: str, cells: Iterable[Sign]) -> Text:
    line = Text(label.ljust(_LABEL), no_wrap=True)
    for sign, style in cells:
        line.append(sign, style)
    return line


def _legend(signs: _Signs, with_in_hand: bool) -> Text:
    entries = [
        (signs.cells["ok"], "answered"),
        (signs.cells["waiting"], "waiting over 1 s"),
        (signs.cells["failed"], "failed"),
        (signs.cut, "cut"),
    ]
    if with_in_hand:
        entries.insert(3, (signs.cells["in hand"], "cut in use"))
    legend = Text(" " * _LABEL)
    for (sign, style), meaning in entries:
        legend.append(sign, style)
        legend.append(f" {meaning}   ", DIM)
    legend.rstrip()
    return legend
