"""A run as strips of cells, one cell for each short span of time."""

from __future__ import annotations

from typing import Literal

from everpool.demo.lane import View
from everpool.demo.traffic import Kind, Spell

__all__ = ["SLOW", "Cell", "Kind", "cut_cells", "request_cells", "spell_cells"]

Cell = Literal["nothing", "ok", "in hand", "waiting", "failed"]

_RANK: dict[Cell, int] = {"nothing": 0, "ok": 1, "in hand": 2, "waiting": 3, "failed": 4}
SLOW = 1.0  # seconds after which somebody is waiting


def request_cells(view: View, seconds: float, width: int) -> list[Cell]:
    """Return for each cell the worst that befell a request.

    An answer and a failure are shown where they came, a long wait over its whole length.
    """
    cells: list[Cell] = ["nothing"] * width

    def mark(index: int, what: Cell) -> None:
        if _RANK[what] > _RANK[cells[index]]:
            cells[index] = what

    for seen in view.requests:
        end = view.at if seen.ended is None else seen.ended
        last = _index(end, seconds, width)
        if end - seen.due >= SLOW:
            for index in range(_index(seen.due, seconds, width), last + 1):
                mark(index, "waiting")
        if seen.outcome != "pending":
            mark(last, seen.outcome)
    return cells


def cut_cells(view: View, seconds: float, width: int) -> list[bool]:
    """Return for each cell whether the proxy cut a connection."""
    cells = [False] * width
    for at, _ in view.cuts:
        cells[_index(at, seconds, width)] = True
    return cells


def spell_cells(spells: list[Spell], seconds: float, width: int) -> list[Kind]:
    """Return for each cell how many visitors there are."""
    cells: list[Kind] = []
    for index in range(width):
        middle = (index + 0.5) * seconds / width
        cells.append(next(spell.kind for spell in spells if middle < spell.end))
    return cells


def _index(at: float, seconds: float, width: int) -> int:
    return min(width - 1, max(0, int(at / seconds * width)))
