"""What came of all rounds, and whether it is as it must be."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import inf
from typing import Any

import psycopg
import psycopg_pool

import everpool
from everpool import Outcome

from .arena import Round
from .books import LATE, Told, counted
from .lanes import LANES

__all__ = ["NOTHING", "PROBLEMS", "Report", "as_json"]

PROBLEMS = ("lost", "doubled", "false", "without outcome", "late", "early")
"""What must not happen."""

_COLUMNS = (
    "transactions",
    "committed",
    "not committed",
    "unknown",
    "unexplained",
    "asked again",
    "repeated",
    "slow",
    *PROBLEMS,
    "lost by history",
)
NOTHING = "no fault of its own"
"""What is said of a deed that was not struck."""


@dataclass
class Report:
    """The sum of rounds.

    :ivar lanes: counts by lane and by the fault that was brought down.
    :ivar latest: seconds after its deadline, or before if negative, at which the last caller was
        free.
    :ivar broken: what is not as it must be.
    """

    seed: int
    lanes: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )
    raised: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    rounds: int = 0
    cuts: int = 0
    events: Counter[str] = field(default_factory=Counter)
    behind: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    latest: float = -inf
    took: float = 0.0
    version: str = ""

    def add(self, played: Round) -> None:
        """Count a round."""
        self.rounds += 1
        self.cuts += played.cuts
        self.events.update(played.events)
        if played.plan.promotion:
            self.behind.append(played.behind)
        self.version = played.version
        where = f"round {played.plan.number}"
        self.broken += [f"{where}: {what}" for what in played.wrong]
        by_lane: dict[tuple[str, str], list[Told]] = defaultdict(list)
        for told in played.books.told:
            by_lane[told.lane, told.kind or NOTHING].append(told)
            if told.how:
                self.raised[told.lane][f"{told.how}: {told.outcome}"] += 1
            if told.outcome is Outcome.UNKNOWN and not _explained(told, played):
                self.lanes[told.lane][told.kind or NOTHING]["unexplained"] += 1
                self.broken.append(
                    f"{where}: {told.lane}: work {told.work} ({told.kind or NOTHING}) is unknown"
                    " without a reason"
                )
            found = [*played.books.problems.get(told.work, ())]
            found += ["without outcome"] * (told.outcome is None)
            found += ["late"] * (told.overdue > LATE) + ["early"] * told.early
            self.latest = max(self.latest, told.overdue)
            if told.lane not in _NAIVE and (wrong := set(found) & set(PROBLEMS)):
                self.broken.append(f"{where}: {', '.join(wrong)}: {_story(told, played)}")
        for (lane, kind), tolds in by_lane.items():
            self.lanes[lane][kind].update(counted(tolds, played.books.problems))
        for hung in played.hung:
            if not hung.startswith(tuple(_NAIVE)):
                self.broken.append(f"{where}: {hung} has not ended")

    def totals(self, lane: str) -> Counter[str]:
        """The counts of a lane, whatever befell it."""
        total: Counter[str] = Counter()
        for counts in self.lanes[lane].values():
            total.update(counts)
        return total

    @property
    def transactions(self) -> int:
        """Of everpool's lanes."""
        return sum(self.totals(lane)["transactions"] for lane in self.lanes if lane not in _NAIVE)

    @property
    def struck(self) -> int:
        """How many of them were struck by a fault of their own."""
        return sum(
            counts["transactions"]
            for lane, kinds in self.lanes.items()
            for kind, counts in kinds.items()
            if lane not in _NAIVE and kind != NOTHING
        )

    def ordered(self) -> list[tuple[str, dict[str, Counter[str]]]]:
        """The lanes as they are shown."""
        return [(spec.name, self.lanes[spec.name]) for spec in LANES if spec.name in self.lanes]


_NAIVE = frozenset(spec.name for spec in LANES if not spec.mode)


def _story(told: Told, played: Round) -> str:
    """What there is to know of a deed that went wrong."""
    text = (
        f"{told.lane}: work {told.work} ({told.kind or NOTHING}) was {told.outcome}"
        f" after {told.at - told.began:.3f} s and {told.tries} tries"
    )
    if told.how:
        text += f" by {told.how}"
    if told.overdue > 0:
        text += f", {told.overdue:.3f} s after its deadline"
    if (history := played.history) is not None:
        rows = history.rows.get(told.work, 0)
        text += f", {told.at - history.until:+.3f} s from the promotion; {rows} on the old primary"
    return text


def _explained(told: Told, played: Round) -> bool:
    """Whether the protocol allows it to stay unknown."""
    if told.lane in _NAIVE:
        return True
    return told.lane.startswith("xid") and played.disturbed(told.began, told.at)


def as_json(report: Report) -> dict[str, Any]:
    """Return the object that :mod:`everpool.torture` describes."""
    return {
        "seed": report.seed,
        "transactions": report.transactions,
        "struck": report.struck,
        "cuts": report.cuts,
        "rounds": report.rounds,
        "took": round(report.took, 1),
        "events": dict(report.events),
        "bytes_behind": report.behind,
        "latest": round(report.latest, 3),
        "versions": {
            "everpool": everpool.__version__,
            "psycopg": psycopg.__version__,
            "psycopg_pool": psycopg_pool.__version__,
            "postgresql": report.version,
            "python": platform.python_version(),
        },
        "lanes": {
            lane: {
                "total": _row(report.totals(lane)),
                "raised": dict(report.raised[lane]),
                "faults": {kind: _row(counts) for kind, counts in sorted(kinds.items())},
            }
            for lane, kinds in report.ordered()
        },
        "broken": report.broken,
    }


def _row(counts: Counter[str]) -> dict[str, int]:
    return {column.replace(" ", "_"): counts[column] for column in _COLUMNS}
